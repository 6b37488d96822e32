// cp: as GNU cp, but each file appears whole: it is written beside its target and renamed.
#include "copy.h"

static bool recursive, no_dereference, no_target_dir, newer_only, no_clobber;
static struct { dev_t dev; ino_t ino; } made[1024];  // targets, so that none is copied into itself
static atomic_int made_count;
static const char *folder;  // -t

static bool is_own_target(const struct stat *st) {
  for (int i = 0; i < made_count; i++)
    if (made[i].dev == st->st_dev && made[i].ino == st->st_ino) return true;
  return false;
}

static bool enter(Dir *dir, int fd) {
  if (dir->parent && is_own_target(&dir->st)) {
    complain("cannot copy a directory into itself:", dir->path, 0);
    dir->failed = true;
    return false;
  }
  if (opt_dryrun) {
    char *to = target_path(dir);
    told_change("copy", dir->path, to);
    free(to);
    return true;
  }
  if (!make_target(dir, fd)) { dir->failed = true; return false; }
  if (!dir->parent && made_count < 1024) {
    made[made_count].dev = dir->dev[1], made[made_count].ino = dir->ino[1];
    made_count++;
  }
  return true;
}

// What is already there and decides whether it stays.
static bool stays(const Way *way) {
  struct stat st;
  if ((!newer_only && !no_clobber) || (way->dir && way->dir->fresh)) return false;
  if (fstatat(way->to, way->to_name, &st, AT_SYMLINK_NOFOLLOW)) return false;
  if (no_clobber) return true;
  const struct timespec *a = &way->st.st_mtim, *b = &st.st_mtim;
  return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec <= b->tv_nsec);
}

static void copy_one(Way *way) {
  if (stays(way)) return;
  if (!opt_dryrun && !copy_entry(way)) return;
  told_change("copy", way->path, way->to_path);
}

static void entry(Dir *dir, int fd, const char *name, int type) {
  bool temporary = false;
  int to = opt_dryrun ? -1 : grip(dir, 1, &temporary);
  char *path = join(dir->path, name), *above = target_path(dir), *to_path = join(above, name);
  Way way = {dir, fd, to, name, name, path, to_path, {0}, false};
  way.st.st_mode = DTTOIF(type);
  bool cheap = type == DT_REG && !keep.links && !newer_only;  // its stat is asked for when it is open
  if (to < 0 && !opt_dryrun) complain("cannot write", to_path, errno);
  else if (!cheap && fstatat(fd, name, &way.st, AT_SYMLINK_NOFOLLOW)) complain("cannot access", path, errno);
  else copy_one(&way);
  let_go(to, temporary);
  free(path);
  free(above);
  free(to_path);
}

static void leave(Dir *dir) {
  if (dir->error && !opt_dryrun) make_target(dir, -1);  // one that cannot be read has an empty copy
  if (!opt_dryrun) finish_target(dir);
  if (!dir->failed) n_changed++;
}

static const char *last_part(const char *path) {
  static char part[256];
  size_t size = strlen(path);
  while (size > 1 && path[size - 1] == '/') size--;
  const char *begin = path + size;
  while (begin > path && begin[-1] != '/') begin--;
  size_t length = path + size - begin;
  if (length >= sizeof part) length = sizeof part - 1;
  memcpy(part, begin, length);
  part[length] = 0;
  return part;
}

static void copy_named(const char *path, const char *to) {
  struct stat st, there;
  bool through = !recursive && !no_dereference;
  if (fstatat(AT_FDCWD, path, &st, through ? 0 : AT_SYMLINK_NOFOLLOW)) { complain("cannot access", path, errno); return; }
  bool is_there = !stat(to, &there);
  if (is_there && there.st_dev == st.st_dev && there.st_ino == st.st_ino) {
    bool folder = S_ISDIR(st.st_mode);
    complain(folder ? "cannot copy a directory into itself:" : "source and target are the same file:", path, 0);
    return;
  }
  if (S_ISDIR(st.st_mode)) {
    if (!recursive) { complain("-r not specified; omitting directory", path, 0); return; }
    if (is_there && !S_ISDIR(there.st_mode)) { complain("cannot overwrite non-directory", to, 0); return; }
    walk_root(path, to, &st);
    return;
  }
  if (is_there && S_ISDIR(there.st_mode)) { complain("cannot overwrite directory", to, 0); return; }
  n_entries++;
  char *above = strdup(to), *slash = strrchr(above, '/');
  const char *name = slash ? to + (slash - above) + 1 : to;
  if (slash) slash[slash == above] = 0;
  int at = slash ? open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : AT_FDCWD;
  Way way = {0, AT_FDCWD, at, path, name, path, to, st, through};
  if (at == -1) complain("cannot create", to, errno);
  else copy_one(&way);
  if (slash && at >= 0) close(at);
  free(above);
}

static bool preserve(const char *list, bool on) {
  static const struct { const char *word; bool *flag; } kinds[] = {{"mode", &keep.mode}, {"ownership", &keep.owner},
      {"timestamps", &keep.times}, {"links", &keep.links}, {"xattr", &keep.xattrs}, {"context", 0}};
  for (const char *at = list; *at;) {
    size_t size = strcspn(at, ",");
    bool whole = size == 3 && !strncmp(at, "all", 3), known = whole;
    for (int i = 0; i < 6; i++) {
      bool match = size == strlen(kinds[i].word) && !strncmp(at, kinds[i].word, size);
      if ((match || whole) && kinds[i].flag) *kinds[i].flag = on;
      known |= match;
    }
    if (!known) return false;
    at += size + (at[size] == ',');
  }
  return true;
}

static int when(const char *word) {
  return !word || !strcmp(word, "always") ? 2 : !strcmp(word, "auto") ? 1 : !strcmp(word, "never") ? 0 : -1;
}

static const Option table[] = {
    {'a', "archive", 0}, {'r', "recursive", 0}, {'R', 0, 0}, {'p', 0, 0}, {'d', 0, 0}, {'P', "no-dereference", 0},
    {'n', "no-clobber", 0}, {'u', "update", 0}, {'v', "verbose", 0}, {'f', "force", 0}, {'T', "no-target-directory", 0},
    {'x', "one-file-system", 0}, {'t', "target-directory", 1}, {1, "preserve", 2},
    {2, "no-preserve", 1}, {3, "reflink", 2}, {4, "sparse", 1}, {0, 0, 0}};

static bool take(int letter, const char *value) {
  static const char usual[] = "mode,ownership,timestamps";
  switch (letter) {
    case 'a': recursive = no_dereference = true; return preserve("all", true);
    case 'r': case 'R': return recursive = true;
    case 'p': return preserve(usual, true);
    case 'd': keep.links = true; return no_dereference = true;
    case 'P': return no_dereference = true;
    case 'n': return no_clobber = true;
    case 'u': return newer_only = true;
    case 'v': return opt_verbose = true;
    case 'T': return no_target_dir = true;
    case 'x': return opt_one_fs = true;
    case 't': folder = value; return true;
    case 1: return preserve(value ? value : usual, true);
    case 2: return preserve(value, false);
    case 3: return (keep.reflink = when(value)) >= 0;
    case 4: return (keep.sparse = when(value)) >= 0;
    default: return true;
  }
}

static int start(int argc, char **argv) {
  int count = take_options(argc, argv, table, take);
  if (count < 0) return 1;
  char **paths = argv + 1;
  if (!count) return usage("missing file operand", 0);
  if (!folder && count < 2) return usage("missing destination file operand after", paths[0]);
  struct stat st;
  const char *last = folder ? folder : paths[--count];
  bool into = folder || (!no_target_dir && !stat(last, &st) && S_ISDIR(st.st_mode));
  if (folder && (stat(folder, &st) || !S_ISDIR(st.st_mode))) return usage("target is not a directory:", folder);
  if (!into && count > 1) return usage("target is not a directory:", last);
  for (int i = 0; i < count; i++) {
    const char *name = last_part(paths[i]);
    char *to = into && !is_dot(name) ? join(last, name) : strdup(last);
    copy_named(paths[i], to);
    free(to);
  }
  return -1;
}

static int finish(void) {
  if (opt_json) json_summary();
  return n_errors > 0;
}

const Tool cp_tool = {.name = "cp", .start = start, .enter = enter, .entry = entry, .leave = leave, .finish = finish,
                      .slices = true, .trouble = 1};
