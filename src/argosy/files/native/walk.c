// The walk: a folder is opened below its parent's descriptor and never through a link, read, cut into slices, and
// left when all below it is done. Whoever swaps a folder for a link in the meantime leads nobody astray: names are
// looked up one by one below descriptors.
#include "pf.h"
#include <sys/resource.h>

enum { LISTING = 64 << 10 };
static long open_limit;
static atomic_long opened;

// Descriptors of folders are kept open up to a limit; above it each use opens the folder anew, from the top.
void walk_limits(int threads) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) { open_limit = 100; return; }
  limit.rlim_cur = limit.rlim_max;
  if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0)) getrlimit(RLIMIT_NOFILE, &limit);
  long spare = (long)limit.rlim_cur - 4L * threads - 64;
  open_limit = spare < 0 ? 0 : spare > 8192 ? 8192 : spare;
}

bool is_dot(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

char *join(const char *folder, const char *name) {
  size_t a = strlen(folder), b = strlen(name);
  bool slash = a && folder[a - 1] != '/';
  char *text = malloc(a + b + 2);
  memcpy(text, folder, a);
  if (slash) text[a] = '/';
  memcpy(text + a + slash, name, b + 1);
  return text;
}

int open_dir_at(int at, const char *name) {
  return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
}

void let_go(int fd, bool temporary) {
  int kept = errno;
  if (temporary && fd >= 0) close(fd);
  errno = kept;
}

void keep_fd(Dir *dir, int side, int fd, const struct stat *known) {
  struct stat st;
  if (!known && !fstat(fd, &st)) known = &st;
  if (known) dir->dev[side] = known->st_dev, dir->ino[side] = known->st_ino;
  if (dir->named || atomic_fetch_add(&opened, 1) < open_limit) { dir->fd[side] = fd; return; }
  atomic_fetch_sub(&opened, 1);
  dir->fd[side] = -2;  // the caller's for now; whoever needs it later opens it anew
}

static void forget_fd(Dir *dir, int side) {
  if (dir->fd[side] < 0) return;
  close(dir->fd[side]);
  if (!dir->named) atomic_fetch_sub(&opened, 1);
}

int grip(Dir *dir, int side, bool *temporary) {
  *temporary = false;
  if (dir->fd[side] >= 0) return dir->fd[side];
  if (!dir->parent) { errno = EBADF; return -1; }
  long depth = 0;
  Dir *top = dir;
  for (; top->fd[side] < 0 && top->parent; top = top->parent) depth++;
  if (top->fd[side] < 0) { errno = EBADF; return -1; }
  int fd = top->fd[side];
  for (bool ours = false; depth-- > 0; ours = true) {
    Dir *next = dir;
    for (long up = depth; up > 0; up--) next = next->parent;
    int below = open_dir_at(fd, side && next->to ? next->to : next->name);
    let_go(fd, ours);
    struct stat st;
    if (below < 0) return -1;
    if (fstat(below, &st) || st.st_dev != next->dev[side] || st.st_ino != next->ino[side]) {
      close(below);  // another folder has its name now
      errno = ESTALE;
      return -1;
    }
    fd = below;
  }
  *temporary = true;
  return fd;
}

int parent_grip(Dir *dir, int side, bool *temporary) {
  *temporary = false;
  return dir->parent ? grip(dir->parent, side, temporary) : AT_FDCWD;
}

static Dir *new_dir(Dir *parent, char *path, size_t name_size) {
  Dir *dir = calloc(1, sizeof *dir);
  dir->parent = parent;
  dir->path = path;
  dir->name = parent ? path + strlen(path) - name_size : path;
  dir->fd[0] = dir->fd[1] = -1;
  dir->refs = 1;
  dir->depth = parent ? parent->depth + 1 : 0;
  dir->named = !parent;
  if (parent) parent->refs++;
  return dir;
}

// Work of a tool's own on what lies in a folder, for any thread.
Job *work_job(Dir *dir, void (*work)(void *what), void *what) {
  Job *job = calloc(1, sizeof *job);
  job->dir = dir;
  job->work = work;
  job->what = what;
  dir->refs++;
  return job;
}

static Job *scan_job(Dir *dir) {
  Job *job = calloc(1, sizeof *job);
  job->dir = dir;
  job->scan = true;
  return job;
}

Dir *walk_root(const char *path, const char *to, const struct stat *st) {
  Dir *dir = new_dir(0, strdup(path), 0);
  if (to) dir->to = strdup(to);
  if (st) dir->st = *st, dir->seen = true;
  Job *job = scan_job(dir);
  push_jobs(job, job, 1);
  return dir;
}

static void unref(Dir *dir) {
  while (dir && atomic_fetch_sub(&dir->refs, 1) == 1) {
    if (tool->leave) tool->leave(dir);
    forget_fd(dir, 0);
    forget_fd(dir, 1);
    Dir *parent = dir->parent;
    free(dir->path);
    free(dir->to);
    free(dir->more);
    free(dir);
    dir = parent;
  }
}

static bool is_loop(Dir *dir) {
  for (Dir *up = dir->parent; up; up = up->parent)
    if (up->ino[0] == dir->ino[0] && up->dev[0] == dir->dev[0]) return true;
  return false;
}

// Opens the folder and decides whether it is read. Returns its fd, or -1.
static int open_scanned(Dir *dir) {
  bool temporary;
  int at = parent_grip(dir, 0, &temporary);
  int fd = at == -1 ? -1
           : dir->named && tool->follows ? openat(at, dir->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK)
                                         : open_dir_at(at, dir->name);
  let_go(at, temporary);
  n_dirs++;
  if (fd < 0) {
    dir->failed = true;
    dir->error = errno;
    if (tool->tries_unread) return -1;
    if (!opt_quiet) complain("cannot read directory", dir->path, errno);
    else n_errors++;
    return -1;
  }
  struct stat st;
  if (fstat(fd, &st)) { dir->failed = true; complain("cannot access", dir->path, errno); close(fd); return -1; }
  dir->st = st, dir->seen = true;
  keep_fd(dir, 0, fd, &st);
  bool read = true;
  if (is_loop(dir)) {
    complain("not entered, it contains itself:", dir->path, ELOOP);
    dir->failed = true;
    read = false;
  } else if (opt_one_fs && dir->parent && dir->parent->dev[0] != dir->dev[0]) {
    read = false;
  } else if (tool->enter) {
    read = tool->enter(dir, fd);
  }
  if (read) return fd;
  if (dir->fd[0] < 0) close(fd);
  return -1;
}

typedef struct Found { char *names; size_t used, room; int count; } Found;

static void add(Found *found, const char *name, unsigned char type) {
  size_t size = strlen(name) + 1;
  if (found->used + size + 1 > found->room)
    found->names = realloc(found->names, found->room = (found->room + size + 1) * 2 + 512);
  found->names[found->used] = (char)type;
  memcpy(found->names + found->used + 1, name, size);
  found->used += size + 1;
  found->count++;
}

static int type_at(int fd, const char *name, int type) {
  struct stat st;
  if (type != DT_UNKNOWN || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW)) return type;
  return IFTODT(st.st_mode);
}

static void room_for_path(size_t size) {
  if (size > mine.path_room) mine.path = realloc(mine.path, mine.path_room = size * 2 + 256);
}

static void at_folder(const char *path) {
  size_t size = strlen(path);
  room_for_path(size + 2);
  memcpy(mine.path, path, size);
  if (size && path[size - 1] != '/') mine.path[size++] = '/';
  mine.folder_size = size;
}

const char *path_of(const char *name) {
  size_t size = strlen(name) + 1;
  room_for_path(mine.folder_size + size);
  memcpy(mine.path + mine.folder_size, name, size);
  return mine.path;
}

// What was done is told in steps: often while calls sleep, so that more threads come soon, seldom while none does.
static void each(Dir *dir, int fd, char *names, int count) {
  int untold = 0;
  at_folder(dir->path);
  for (char *at = names; count-- > 0 && !stopping(); at += strlen(at + 1) + 2) {
    tool->entry(dir, fd, at + 1, (unsigned char)at[0]);
    if (++untold < (mine.calm ? 64 : 16)) continue;
    n_entries += untold;
    untold = 0;
    count_sleeps();
  }
  n_entries += untold;
  if (!mine.inodes) return;
  dir->own_bytes += mine.bytes;
  dir->own_inodes += mine.inodes;
  mine.bytes = mine.inodes = 0;
}

// What was found beyond one slice becomes jobs of its own. Returns where the caller's own part begins.
static char *cut(Dir *dir, Found *found, int *left) {
  char *at = found->names;
  *left = found->count;
  if (!tool->slices) return at;
  Job *first = 0, *last = 0;
  long jobs = 0;
  while (*left > SLICE + SLICE / 2) {
    char *end = at;
    for (int i = 0; i < SLICE; i++) end += strlen(end + 1) + 2;
    Job *job = calloc(1, sizeof *job);
    job->dir = dir;
    job->names = memcpy(malloc(end - at), at, end - at);
    job->count = SLICE;
    job->next = first;
    if (!last) last = job;
    first = job;
    dir->refs++;
    jobs++;
    at = end;
    *left -= SLICE;
  }
  if (first) push_jobs(first, last, jobs);
  return at;
}

const Listed *next_name(Names *names) {
  for (;;) {
    if (names->at >= names->got) {
      names->at = 0;
      names->got = syscall(SYS_getdents64, names->fd, names->block, names->room);
      if (names->got <= 0) return 0;
    }
    const Listed *entry = (Listed *)(names->block + names->at);
    names->at += entry->size;
    if (!is_dot(entry->name)) return entry;
  }
}

// A folder is listed by few calls, each with a large buffer.
static void scan(Dir *dir) {
  if (stopping() || (tool->before && !tool->before(dir))) return;
  int fd = open_scanned(dir);
  if (fd < 0) return;
  if (!mine.listing) mine.listing = malloc(LISTING);
  Names names = {fd, 0, 0, LISTING, mine.listing};
  Found found = {0};
  Job *first = 0, *last = 0;
  long jobs = 0;
  for (const Listed *entry; (entry = next_name(&names));) {
    int type = type_at(fd, entry->name, entry->type);
    if (type != DT_DIR) { add(&found, entry->name, type); continue; }
    Job *job = scan_job(new_dir(dir, join(dir->path, entry->name), strlen(entry->name)));
    job->next = first;
    if (!last) last = job;
    first = job;
    jobs++;
  }
  if (names.got < 0) { dir->failed = true; complain("cannot read directory", dir->path, errno); }
  if (first) push_jobs(first, last, jobs);
  int left;
  char *mine = cut(dir, &found, &left);
  each(dir, fd, mine, left);
  free(found.names);
  if (dir->fd[0] < 0) close(fd);
}

void run_job(Job *job) {
  Dir *dir = job->dir;
  if (job->work) {
    job->work(job->what);
  } else if (job->scan) {
    scan(dir);
  } else {
    bool temporary;
    int fd = grip(dir, 0, &temporary);
    if (fd < 0) complain("cannot read directory", dir->path, errno);
    else each(dir, fd, job->names, job->count);
    let_go(fd, temporary);
    free(job->names);
  }
  free(job);
  unref(dir);
}
