// chmod and chown: a folder is changed before it is entered, as GNU does, and never through a link that lies in it.
#include "pf.h"

static bool recursive, changes_only, no_dereference, owner_given, group_given;
static Mode *mode;
static const char *reference;
static bool surprising;  // the mode was written as an option: what the umask keeps back is said
static uid_t owner = -1, from_owner;
static gid_t group = -1, from_group;
static bool from_owner_given, from_group_given;

static void tell(const char *path, bool changed) {
  if (changed) told_change("change", path, 0);
  else if (opt_verbose && !changes_only) told_change("keep", path, 0), n_changed--;
}

static void failed(const char *what, const char *path, int error) {
  if (opt_quiet) n_errors++;
  else complain(what, path, error);
}

// `flags`: AT_SYMLINK_NOFOLLOW for what lies in a folder.
static void change_mode(int at, const char *name, const char *path, int flags, const struct stat *known) {
  struct stat st;
  if (known) st = *known;
  else if (fstatat(at, name, &st, flags)) { failed("cannot access", path, errno); return; }
  if (S_ISLNK(st.st_mode)) return;
  mode_t old = st.st_mode & 07777, now = apply_mode(mode, old, S_ISDIR(st.st_mode), umask_bits);
  if (!opt_dryrun && set_mode(at, name, now, flags)) { failed("changing permissions of", path, errno); return; }
  tell(path, now != old);
  mode_t naive = surprising ? apply_mode(mode, old, S_ISDIR(st.st_mode), 0) : now;
  if (now & ~naive) complain("the umask keeps back permissions of", path, 0);
}

static void change_owner(int at, const char *name, const char *path, int flags) {
  struct stat st;
  if (fstatat(at, name, &st, flags)) { failed("cannot access", path, errno); return; }
  if ((from_owner_given && st.st_uid != from_owner) || (from_group_given && st.st_gid != from_group)) return;
  bool differs = (owner != (uid_t)-1 && st.st_uid != owner) || (group != (gid_t)-1 && st.st_gid != group);
  if (!opt_dryrun && fchownat(at, name, owner, group, flags)) { failed("changing ownership of", path, errno); return; }
  tell(path, differs);
}

static void change(int at, const char *name, const char *path, int flags) {
  if (mode) change_mode(at, name, path, flags, 0);
  else change_owner(at, name, path, flags);
}

static bool before(Dir *dir) {
  bool temporary;
  int at = parent_grip(dir, 0, &temporary);
  if (at == -1) failed("cannot access", dir->path, errno);
  else change(at, dir->name, dir->path, dir->named && tool->follows ? 0 : AT_SYMLINK_NOFOLLOW);
  let_go(at, temporary);
  return true;
}

static void entry(Dir *dir, int fd, const char *name, int type) {
  (void)dir;
  if (mode && type == DT_LNK) return;
  change(fd, name, path_of(name), AT_SYMLINK_NOFOLLOW);
}

static int begin(char **paths, int count) {
  for (int i = 0; i < count; i++) {
    struct stat st;
    bool link = no_dereference || (!mode && recursive);  // chown -R changes links themselves
    if (fstatat(AT_FDCWD, paths[i], &st, link ? AT_SYMLINK_NOFOLLOW : 0)) {
      failed("cannot access", paths[i], errno);
      continue;
    }
    if (recursive && S_ISDIR(st.st_mode)) {
      if (!strcmp(paths[i], "/")) return usage("it is dangerous to work on all of", "/");
      walk_root(paths[i], 0, &st);
      continue;
    }
    n_entries++;
    change(AT_FDCWD, paths[i], paths[i], link ? AT_SYMLINK_NOFOLLOW : 0);
  }
  return -1;
}

static bool take_owner(char *word, uid_t *uid, gid_t *gid, bool *has_uid, bool *has_gid) {
  char *colon = strchr(word, ':');
  uint32_t id;
  if (colon) *colon = 0;
  if (*word && !id_of(word, false, &id)) return false;
  if (*word) *uid = id, *has_uid = true;
  if (colon && colon[1] && !id_of(colon + 1, true, &id)) return false;
  if (colon && colon[1]) *gid = id, *has_gid = true;
  return true;
}

// "-w", "-rwx", "-u+x" are modes, although they look like options.
static bool is_mode_word(const char *word) { return word[0] == '-' && word[1] && strchr("rwxXstugoa,+-=", word[1]) != 0; }

static const Option table[] = {
    {'R', "recursive", 0}, {'v', "verbose", 0}, {'c', "changes", 0}, {'f', "quiet", 0}, {'f', "silent", 0},
    {'h', "no-dereference", 0}, {'P', "preserve-root", 0}, {2, "dereference", 0}, {1, "reference", 1}, {3, "from", 1},
    {0, 0, 0}};

static bool take(int letter, const char *value) {
  switch (letter) {
    case 'R': return recursive = true;
    case 'v': return opt_verbose = true;
    case 'c': return opt_verbose = changes_only = true;
    case 'f': return opt_quiet = true;
    case 'h': return no_dereference = true;
    case 1: reference = value; return true;
    case 3: return take_owner(strdup(value), &from_owner, &from_group, &from_owner_given, &from_group_given);
    default: return true;
  }
}

static bool take_reference(bool is_chmod) {
  struct stat st;
  if (stat(reference, &st)) { complain("cannot access", reference, errno); return false; }
  if (is_chmod) mode = mode_of(st.st_mode);
  owner = st.st_uid, group = st.st_gid;
  return true;
}

static int start(int argc, char **argv) {
  bool is_chmod = tool == &chmod_tool, told = false;
  int kept = 1;
  for (int i = 1; i < argc; i++) {  // chmod: a mode among the options, before they are taken
    surprising |= is_chmod && !mode && is_mode_word(argv[i]) && (mode = parse_mode(argv[i]));
    if (surprising && !told) told = true;
    else argv[kept++] = argv[i];
  }
  int count = take_options(kept, argv, table, take);
  if (count < 0) return 1;
  char **paths = argv + 1;
  if (reference && !take_reference(is_chmod)) return 1;
  if (!told && !reference && count) {
    if (is_chmod && !(mode = parse_mode(*paths))) return usage("invalid mode:", *paths);
    if (!is_chmod && !take_owner(strdup(*paths), &owner, &group, &owner_given, &group_given))
      return usage("nobody is called", *paths);
    paths++;
    count--;
  }
  if (count < 1) return usage("missing operand", 0);
  return begin(paths, count);
}

static int finish(void) {
  if (opt_json) json_summary();
  return n_errors > 0;
}

const Tool chmod_tool = {.name = "chmod", .start = start, .before = before, .entry = entry, .finish = finish,
                         .slices = true, .follows = true, .trouble = 1};
const Tool chown_tool = {.name = "chown", .start = start, .before = before, .entry = entry, .finish = finish,
                         .slices = true, .trouble = 1};
