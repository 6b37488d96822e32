// rm: entries of a folder in turn (its lock is held for each of them anyway), folders side by side, and a folder
// itself when all below it is gone.
#include "pf.h"

static bool recursive, force, empty_dirs;

static void entry(Dir *dir, int fd, const char *name, int type) {
  (void)type;
  if (!opt_dryrun && unlinkat(fd, name, 0)) {
    if (errno == ENOENT && force) return;
    complain("cannot remove", path_of(name), errno);
    dir->failed = true;
    return;
  }
  if (!opt_verbose && !opt_dryrun) { n_changed++; return; }
  told_change("remove", path_of(name), 0);
}

// A folder in which something stays is not tried, nor those that it lies in. One that could not be opened may be
// empty.
static void leave(Dir *dir) {
  bool other = opt_one_fs && dir->parent && dir->dev[0] != dir->parent->dev[0] && !dir->error;
  if (other) complain("skipping, it is on another device:", dir->path, 0);
  bool temporary, gone = false;
  int at = parent_grip(dir, 0, &temporary);
  if (!other && (!dir->failed || dir->error) && at != -1) {
    gone = opt_dryrun ? !dir->error : !unlinkat(at, dir->name, AT_REMOVEDIR) || (errno == ENOENT && force);
    if (!gone) complain("cannot remove", dir->path, dir->error ? dir->error : errno);
  }
  let_go(at, temporary);
  if (gone) told_change("remove", dir->path, 0);
  else if (dir->parent) dir->parent->failed = true;
}

static bool refused(const char *path) {
  size_t size = strlen(path);
  while (size > 1 && path[size - 1] == '/') size--;
  const char *last = path + size;
  while (last > path && last[-1] != '/') last--;
  size_t part = path + size - last;
  struct stat root, st;
  if ((part == 1 && last[0] == '.') || (part == 2 && last[0] == '.' && last[1] == '.')) {
    complain("refusing to remove '.' or '..':", path, 0);
    return true;
  }
  if (!lstat("/", &root) && !lstat(path, &st) && st.st_dev == root.st_dev && st.st_ino == root.st_ino) {
    complain("it is dangerous to work on all of", path, 0);
    return true;
  }
  return false;
}

static const Option table[] = {{'r', "recursive", 0}, {'R', 0, 0}, {'f', "force", 0}, {'v', "verbose", 0}, {'d', "dir", 0},
                               {1, "one-file-system", 0}, {2, "preserve-root", 2}, {0, 0, 0}};

static bool take(int letter, const char *value) {
  (void)value;
  switch (letter) {
    case 'r': case 'R': return recursive = true;
    case 'f': return force = true;
    case 'v': return opt_verbose = true;
    case 'd': return empty_dirs = true;
    case 1: return opt_one_fs = true;
    default: return true;
  }
}

static void remove_named(const char *path) {
  struct stat st;
  if (lstat(path, &st)) {
    if (!force || (errno != ENOENT && errno != ENOTDIR)) complain("cannot remove", path, errno);
    return;
  }
  if (S_ISDIR(st.st_mode) && recursive) { walk_root(path, 0, &st); return; }
  n_entries++;
  if (S_ISDIR(st.st_mode) && !empty_dirs) { complain("cannot remove", path, EISDIR); return; }
  int flags = S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0;
  if (!opt_dryrun && unlinkat(AT_FDCWD, path, flags)) complain("cannot remove", path, errno);
  else told_change("remove", path, 0);
}

static int start(int argc, char **argv) {
  int count = take_options(argc, argv, table, take);
  if (count < 0) return 1;
  if (!count && !force) return usage("missing operand", 0);
  for (int i = 1; i <= count; i++)
    if (!refused(argv[i])) remove_named(argv[i]);
  return -1;
}

static int finish(void) {
  if (opt_json) json_summary();
  return n_errors > 0;
}

const Tool rm_tool = {.name = "rm", .start = start, .entry = entry, .leave = leave, .finish = finish,
                      .tries_unread = true, .trouble = 1};
