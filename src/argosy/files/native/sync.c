// sync SOURCE TARGET: the target becomes what the source is. Files of the same size and time stay as they are; with
// --delete what the source does not have goes.
#include "copy.h"

static bool deletes, by_content, by_size;

static bool same_bytes(const Way *way) {
  if (!mine.block) mine.block = malloc(BLOCK);
  if (!mine.other) mine.other = malloc(BLOCK);
  char *a = mine.block, *b = mine.other;
  int one = openat(way->from, way->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  int two = openat(way->to, way->to_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  bool same = one >= 0 && two >= 0;
  for (off_t at = 0; same;) {
    ssize_t got = pread(one, a, BLOCK, at), other = pread(two, b, BLOCK, at);
    same = got == other && got >= 0 && !memcmp(a, b, got);
    if (got <= 0) break;
    at += got;
  }
  if (one >= 0) close(one);
  if (two >= 0) close(two);
  return same;
}

static bool same_link(const Way *way) {
  char a[4096], b[4096];
  ssize_t one = readlinkat(way->from, way->name, a, sizeof a), two = readlinkat(way->to, way->to_name, b, sizeof b);
  return one >= 0 && one == two && !memcmp(a, b, one);
}

static bool same(const Way *way, const struct stat *there) {
  const struct stat *st = &way->st;
  if ((st->st_mode & S_IFMT) != (there->st_mode & S_IFMT)) return false;
  if (S_ISLNK(st->st_mode)) return same_link(way);
  if (!S_ISREG(st->st_mode)) return st->st_rdev == there->st_rdev;
  if (st->st_size != there->st_size) return false;
  if (st->st_nlink > 1 && there->st_nlink != st->st_nlink) return false;  // its names are made anew
  if (by_content) return same_bytes(way);
  return by_size || (st->st_mtim.tv_sec == there->st_mtim.tv_sec && st->st_mtim.tv_nsec == there->st_mtim.tv_nsec);
}

// Of what is the same, owner, mode and times follow the source.
static void adjust(const Way *way, const struct stat *there) {
  const struct stat *st = &way->st;
  bool owner = st->st_uid != there->st_uid || st->st_gid != there->st_gid;
  bool mode = !S_ISLNK(st->st_mode) && (st->st_mode ^ there->st_mode) & 07777;
  bool times = st->st_mtim.tv_sec != there->st_mtim.tv_sec || st->st_mtim.tv_nsec != there->st_mtim.tv_nsec;
  if (!owner && !mode && !times) return;
  if (!opt_dryrun) {
    struct timespec at[] = {st->st_atim, st->st_mtim};
    if (owner && fchownat(way->to, way->to_name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) && errno != EPERM)
      complain("cannot keep the owner of", way->to_path, errno);
    if ((mode || owner) && !S_ISLNK(st->st_mode)) set_mode(way->to, way->to_name, st->st_mode & 07777, AT_SYMLINK_NOFOLLOW);
    if (times) utimensat(way->to, way->to_name, at, AT_SYMLINK_NOFOLLOW);
  }
  told_change("adjust", way->to_path, 0);
}

static void bring(Way *way) {
  struct stat there;
  bool is_there = way->to >= 0 && !(way->dir && way->dir->fresh) &&
                  !fstatat(way->to, way->to_name, &there, AT_SYMLINK_NOFOLLOW);
  if (is_there && same(way, &there)) { adjust(way, &there); return; }
  if (is_there && S_ISDIR(there.st_mode)) {
    if (!deletes) { complain("a directory is in the way (--delete removes it):", way->to_path, 0); return; }
    if (!opt_dryrun && !remove_tree(way->to, way->to_name, way->to_path)) return;
  }
  if (opt_dryrun || copy_entry(way)) told_change("copy", way->path, way->to_path);
}

static void entry(Dir *dir, int fd, const char *name, int type) {
  bool temporary = false;
  (void)type;
  int to = dir->fd[1] == -1 ? -1 : grip(dir, 1, &temporary);
  char *path = join(dir->path, name), *folder = target_path(dir), *to_path = join(folder, name);
  Way way = {dir, fd, to, name, name, path, to_path, {0}, false};
  if (fstatat(fd, name, &way.st, AT_SYMLINK_NOFOLLOW)) {
    if (errno != ENOENT) complain("cannot access", path, errno);  // it went away while we looked
  } else if (to < 0 && !opt_dryrun) {
    complain("cannot write", to_path, errno);
  } else {
    bring(&way);
  }
  let_go(to, temporary);
  free(path);
  free(folder);
  free(to_path);
}

// Something else than a folder where a folder goes.
static bool clear_way(Dir *dir) {
  bool temporary;
  struct stat st;
  int at = parent_grip(dir, 1, &temporary);
  const char *name = dir->parent ? dir->name : dir->to;
  bool clear = at == -1 || fstatat(at, name, &st, dir->parent ? AT_SYMLINK_NOFOLLOW : 0) || S_ISDIR(st.st_mode);
  if (!clear && dir->parent) {
    char *path = target_path(dir);
    if (opt_dryrun) told_change("remove", path, 0);
    else if (unlinkat(at, name, 0)) complain("cannot remove", path, errno);
    else told_change("remove", path, 0), clear = true;
    free(path);
  }
  let_go(at, temporary);
  return clear;
}

// Without changing anything: the target's folder is opened where it is there.
static bool open_target(Dir *dir) {
  bool temporary;
  int at = !dir->parent || dir->parent->fd[1] != -1 ? parent_grip(dir, 1, &temporary) : -1;
  int fd = at == -1 ? -1 : dir->parent ? open_dir_at(at, dir->name) : open(dir->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (at != -1) let_go(at, temporary);
  if (fd < 0) {
    char *path = target_path(dir);
    dir->fresh = true;
    told_change("create directory", path, 0);
    free(path);
    return true;
  }
  keep_fd(dir, 1, fd, 0);
  if (dir->fd[1] < 0) close(fd);
  return true;
}

static bool enter(Dir *dir, int fd) {
  if (opt_dryrun) return open_target(dir);
  if (!make_target(dir, fd)) { dir->failed = true; return false; }
  if (dir->fresh) n_changed++;
  return true;
}

static bool before(Dir *dir) { return !dir->parent || dir->parent->fresh || clear_way(dir); }

// Names that the source does not have. Nothing goes where the source could not be read.
static void remove_extra(Dir *dir, int from, int to) {
  int own = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat st;
  if (own < 0) return;
  char block[8192], *folder = target_path(dir);
  Names names = {own, 0, 0, sizeof block, block};
  for (const Listed *entry; (entry = next_name(&names));) {
    if (!fstatat(from, entry->name, &st, AT_SYMLINK_NOFOLLOW) || errno != ENOENT) continue;
    char *path = join(folder, entry->name);
    if (opt_dryrun) told_change("remove", path, 0);
    else remove_tree(to, entry->name, path);
    free(path);
  }
  free(folder);
  close(own);
}

static void leave(Dir *dir) {
  bool temporary = false, from_temporary = false;
  if (deletes && !dir->failed && !dir->fresh && dir->fd[1] != -1 && dir->fd[0] != -1) {
    int to = grip(dir, 1, &temporary), from = grip(dir, 0, &from_temporary);
    if (to >= 0 && from >= 0) remove_extra(dir, from, to);
    let_go(to, temporary);
    let_go(from, from_temporary);
  }
  if (!opt_dryrun) finish_target(dir);
}

static const Option table[] = {{1, "delete", 0}, {'c', "checksum", 0}, {2, "size-only", 0}, {'n', 0, 0},
                               {'v', "verbose", 0},
                               {'x', "one-file-system", 0}, {'a', "archive", 0}, {'r', "recursive", 0}, {0, 0, 0}};

static bool take(int letter, const char *value) {
  (void)value;
  switch (letter) {
    case 1: return deletes = true;
    case 2: return by_size = true;
    case 'c': return by_content = true;
    case 'n': return opt_dryrun = true;
    case 'v': return opt_verbose = true;
    case 'x': return opt_one_fs = true;
    default: return true;
  }
}

// Whether the folder, or the one where it will be made, lies in `above` or is it.
static bool lies_in(const char *path, const struct stat *above) {
  char *text = strdup(path), *slash;
  int fd;
  while ((fd = open(text, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 && (slash = strrchr(text, '/')) && slash > text)
    *slash = 0;
  if (fd < 0) fd = open(text[0] == '/' ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  free(text);
  struct stat st, last = {0};
  bool found = false;
  for (; fd >= 0 && !fstat(fd, &st) && !found && !(st.st_ino == last.st_ino && st.st_dev == last.st_dev); last = st) {
    found = st.st_ino == above->st_ino && st.st_dev == above->st_dev;
    int up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(fd);
    fd = up;
  }
  if (fd >= 0) close(fd);
  return found;
}

static int start(int argc, char **argv) {
  int count = take_options(argc, argv, table, take);
  if (count < 0) return 1;
  char **paths = argv + 1;
  if (count > 2) return usage("one source and one target, not also", paths[2]);
  if (count < 2) return usage("missing operand: sync SOURCE TARGET", 0);
  keep = (Keep){.mode = true, .owner = true, .times = true, .links = true, .xattrs = true, .sparse = 1, .reflink = 1};
  struct stat st, there;
  if (stat(paths[0], &st)) { complain("cannot access", paths[0], errno); return 1; }
  if (!S_ISDIR(st.st_mode)) return usage("the source is not a directory:", paths[0]);
  if (!stat(paths[1], &there) && !S_ISDIR(there.st_mode)) return usage("the target is not a directory:", paths[1]);
  if (lies_in(paths[1], &st) || (!stat(paths[1], &there) && lies_in(paths[0], &there)))
    return usage("source and target lie in each other:", paths[1]);
  walk_root(paths[0], paths[1], &st);
  return -1;
}

static int finish(void) {
  if (opt_json) json_summary();
  return n_errors > 0;
}

const Tool sync_tool = {.name = "sync", .start = start, .before = before, .enter = enter, .entry = entry, .leave = leave,
                        .finish = finish, .slices = true, .follows = true, .trouble = 1};
