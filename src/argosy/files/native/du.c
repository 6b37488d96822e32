// du: sums of what folders hold. A file with several names counts once.
#include "pf.h"

static bool all, apparent, total, count_links, own_only, inodes, human_sizes;
static char end = '\n';
static uint64_t block = 1024, deepest = UINT64_MAX, whole_bytes, whole_inodes;
static const char *excluded[32];
static int exclusions;
static char **roots;
static int root_count, next_root;

static uint64_t size_of(const struct stat *st) {
  return apparent ? (uint64_t)st->st_size : (uint64_t)st->st_blocks * 512;
}

static void print(const char *path, uint64_t bytes, uint64_t files) {
  char size[24];
  uint64_t shown = inodes ? files : bytes;
  if (opt_json) {
    put("{\"path\": ");
    put_json(path);
    put(inodes ? ", \"inodes\": " : ", \"bytes\": ");
    put_number(shown);
    put("}");
    end_record('\n');
    return;
  }
  if (human_sizes) put(human(shown, 1, size));
  else put_number(inodes ? shown : (shown + block - 1) / block);
  put("\t");
  put(path);
  end_record(end);
}

static bool skipped(const char *name, const char *path) {
  for (int i = 0; i < exclusions; i++)
    if (matches(excluded[i], name, false) || matches(excluded[i], path, false)) return true;
  return false;
}

static bool counts(const struct stat *st) {
  return count_links || S_ISDIR(st->st_mode) || st->st_nlink < 2 || first_of(st->st_dev, st->st_ino);
}

static bool before(Dir *dir) {
  if (!exclusions || !skipped(dir->name, dir->path)) return true;
  dir->failed = true;
  dir->more = calloc(1, 1);  // left out altogether
  return false;
}

// What lies in a folder that was summed for an earlier argument does not count again.
static bool enter(Dir *dir, int fd) {
  (void)fd;
  if (root_count < 2 || count_links || !dir->parent || first_of(dir->st.st_dev, dir->st.st_ino)) return true;
  dir->more = calloc(1, 1);
  return false;
}

static void entry(Dir *dir, int fd, const char *name, int type) {
  struct stat st;
  (void)type;
  if (exclusions && skipped(name, path_of(name))) return;
  if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
    complain("cannot access", path_of(name), errno);
  } else if (!(opt_one_fs && st.st_dev != dir->dev[0]) && counts(&st)) {
    mine.bytes += size_of(&st);
    mine.inodes++;
    if (all && (uint64_t)dir->depth < deepest) print(path_of(name), size_of(&st), 1);
  }
}

static void leave(Dir *dir) {
  if (dir->more) return;
  if (opt_one_fs && dir->parent && dir->seen && dir->st.st_dev != dir->parent->dev[0]) return;
  if (!dir->seen) {
    bool temporary;
    int at = parent_grip(dir, 0, &temporary);
    dir->seen = at != -1 && !fstatat(at, dir->name, &dir->st, AT_SYMLINK_NOFOLLOW);
    let_go(at, temporary);
  }
  if (dir->seen) {
    dir->own_bytes += size_of(&dir->st);
    dir->own_inodes++;
  }
  uint64_t bytes = dir->bytes + dir->own_bytes, files = dir->inodes + dir->own_inodes;
  if (dir->parent) {
    dir->parent->bytes += bytes;
    dir->parent->inodes += files;
  } else {
    whole_bytes += bytes;
    whole_inodes += files;
  }
  if ((uint64_t)dir->depth > deepest) return;
  print(dir->path, own_only ? dir->own_bytes : bytes, own_only ? dir->own_inodes : files);
}

// What the user named is summed one after another: the first one has the files that several hold.
static void begin_next(void) {
  while (next_root < root_count) {
    char *path = roots[next_root++];
    struct stat st;
    if (lstat(path, &st)) { complain("cannot access", path, errno); continue; }
    if (!counts(&st) || (S_ISDIR(st.st_mode) && !count_links && !first_of(st.st_dev, st.st_ino))) continue;
    if (S_ISDIR(st.st_mode)) { walk_root(path, 0, &st); return; }
    n_entries++;
    whole_bytes += size_of(&st);
    whole_inodes++;
    print(path, size_of(&st), 1);
  }
}

static bool take_size(const char *text) {
  static const char letters[] = "KMGTPE";
  uint64_t number = 0;
  size_t digits = strspn(text, "0123456789");
  for (size_t i = 0; i < digits && i < 18; i++) number = number * 10 + (text[i] - '0');
  if (!digits) number = 1;
  const char *letter = text[digits] ? strchr(letters, text[digits] == 'k' ? 'K' : text[digits]) : 0;
  if (text[digits] && !letter) return false;
  if (letter) number <<= 10 * (letter - letters + 1);
  block = number;
  return number > 0;
}

static const Option table[] = {
    {'a', "all", 0}, {'b', "bytes", 0}, {'c', "total", 0}, {'h', "human-readable", 0}, {'k', 0, 0}, {'m', 0, 0},
    {'l', "count-links", 0}, {'s', "summarize", 0}, {'S', "separate-dirs", 0}, {'x', "one-file-system", 0},
    {'0', "null", 0}, {'d', "max-depth", 1}, {'B', "block-size", 1}, {'P', "no-dereference", 0},
    {1, "apparent-size", 0}, {2, "inodes", 0}, {3, "exclude", 1}, {0, 0, 0}};

static bool take(int letter, const char *value) {
  switch (letter) {
    case 'a': return all = true;
    case 'b': block = 1; return apparent = true;
    case 'c': return total = true;
    case 'h': return human_sizes = true;
    case 'k': block = 1024; return true;
    case 'm': block = 1 << 20; return true;
    case 'l': return count_links = true;
    case 's': deepest = 0; return true;
    case 'S': return own_only = true;
    case 'x': return opt_one_fs = true;
    case '0': end = 0; return true;
    case 'd': return parse_number(value, &deepest);
    case 'B': return take_size(value);
    case 1: return apparent = true;
    case 2: return inodes = true;
    case 3: excluded[exclusions] = value; return exclusions++ < 31;
    default: return true;
  }
}

static int start(int argc, char **argv) {
  root_count = take_options(argc, argv, table, take);
  if (root_count < 0) return 1;
  if (all && deepest == 0) return usage("cannot both summarize and show all entries", 0);
  static char *here = ".";
  roots = root_count ? argv + 1 : &here;
  if (!root_count) root_count = 1;
  ordered_output();  // a folder's line follows those of what it holds, whichever thread writes them
  begin_next();
  return -1;
}

static int finish(void) {
  while (next_root < root_count) { begin_next(); run_pool(); }
  if (total) print("total", whole_bytes, whole_inodes);
  return n_errors > 0;
}

const Tool du_tool = {.name = "du", .start = start, .before = before, .enter = enter, .entry = entry, .leave = leave,
                      .finish = finish, .slices = true, .trouble = 1};
