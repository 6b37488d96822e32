// Copies: written beside the target under a name of their own and renamed into place when they are whole.
#include "copy.h"
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

enum { BIG = 256 << 20, PIECE = 64 << 20 };

Keep keep = {.sparse = 1, .reflink = 1};

static atomic_bool no_clone;      // the file system said that it cannot
static atomic_uint next_number;

// A file whose pieces several threads copy.
typedef struct Big { Way way; int in, out; char temporary[40]; atomic_int left; atomic_bool failed; } Big;
typedef struct Piece { Big *big; off_t at, size; } Piece;

static void temporary_name(char *into) {
  char *at = digits(stpcpy(into, ".pf-"), (uint64_t)getpid());
  *at = '-';
  *digits(at + 1, next_number++) = 0;
}

static bool copy_xattr(int from, int to, const char *name) {
  if (!mine.block) mine.block = malloc(BLOCK);
  ssize_t size = fgetxattr(from, name, mine.block, BLOCK);
  return size >= 0 && !fsetxattr(to, name, mine.block, size, 0);
}

// With -p the access lists, with -a all that can be copied; what the target cannot hold is left out, as cp -a does.
static void keep_xattrs(int from, int to) {
  char names[65536];
  ssize_t size = flistxattr(from, names, sizeof names);
  for (char *at = names; size > 0 && at < names + size; at += strlen(at) + 1) {
    bool list = !strncmp(at, "system.posix_acl_", 17);
    if (list ? keep.mode : keep.xattrs && (!strncmp(at, "user.", 5) || !strncmp(at, "trusted.", 8) ||
                                           !strcmp(at, "security.capability")))
      copy_xattr(from, to, at);
  }
}

void keep_meta(int fd, int from, const struct stat *st, const char *path) {
  mode_t mode = st->st_mode & 07777;
  if (keep.owner && fchown(fd, st->st_uid, st->st_gid)) {
    mode &= ~06000;  // rights of an owner are not given to another
    if (errno != EPERM && errno != EINVAL) complain("cannot keep the owner of", path, errno);
  }
  if (keep.mode && fchmod(fd, mode)) complain("cannot keep the mode of", path, errno);
  if ((keep.xattrs || keep.mode) && from >= 0) keep_xattrs(from, fd);
  struct timespec times[] = {st->st_atim, st->st_mtim};
  if (keep.times && futimens(fd, times)) complain("cannot keep the times of", path, errno);
}

static bool zeros(const char *data, size_t size) {
  return size && !data[0] && !memcmp(data, data + 1, size - 1);
}

static bool write_at(int out, const char *data, size_t size, off_t at) {
  while (size) {
    ssize_t done = pwrite(out, data, size, at);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    data += done, size -= done, at += done;
  }
  return true;
}

// By reading and writing; with --sparse=always blocks of zeros become holes. Ends early at the end of the file.
static bool copy_bytes(int in, int out, off_t at, off_t end) {
  if (!mine.block) mine.block = malloc(BLOCK);
  char *buffer = mine.block;
  while (at < end) {
    size_t want = end - at < BLOCK ? (size_t)(end - at) : BLOCK;
    ssize_t got = pread(in, buffer, want, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (!got) return true;
    for (ssize_t part = 0; part < got; part += 4096) {
      size_t left = (size_t)(got - part), size = keep.sparse == 2 && left > 4096 ? 4096 : left;
      if (!(keep.sparse == 2 && zeros(buffer + part, size)) && !write_at(out, buffer + part, size, at + part)) return false;
      if (keep.sparse != 2) break;
    }
    at += got;
  }
  return true;
}

static bool copy_range(int in, int out, off_t at, off_t end) {
  while (at < end && keep.sparse == 1) {
    off_t from = at, to = at;
    ssize_t done = copy_file_range(in, &from, out, &to, end - at, 0);
    if (done > 0) { at += done; continue; }
    if (!done) return true;
    if (errno == ENOSPC || errno == EDQUOT || errno == EIO) return false;
    break;  // this pair of file systems cannot: by hand
  }
  return copy_bytes(in, out, at, end);
}

// All of a file; its holes stay holes.
static bool copy_data(int in, int out, const struct stat *st) {
  if (keep.reflink && !no_clone) {
    if (!ioctl(out, FICLONE, in)) return true;
    if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == EINVAL) no_clone = true;
  }
  if (keep.reflink == 2) { errno = EOPNOTSUPP; return false; }
  if (!st->st_size) return copy_bytes(in, out, 0, INT64_MAX);  // or a file whose size nobody knows, as in /proc
  if (keep.sparse != 1 || (off_t)st->st_blocks * 512 >= st->st_size)
    return copy_range(in, out, 0, st->st_size) && (keep.sparse != 2 || !ftruncate(out, st->st_size));
  for (off_t at = 0; at < st->st_size;) {
    off_t data = lseek(in, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return copy_range(in, out, at, st->st_size);
    off_t hole = lseek(in, data, SEEK_HOLE);
    if (hole < 0) hole = st->st_size;
    if (!copy_range(in, out, data, hole)) return false;
    at = hole;
  }
  return !ftruncate(out, st->st_size);
}

// The copy is whole: what belongs to it is kept, and it gets its name.
static bool settle(const Way *way, int in, int out, const char *temporary) {
  keep_meta(out, in, &way->st, way->path);
  if (close(out) || renameat(way->to, temporary, way->to, way->to_name)) {
    complain("cannot write", way->to_path, errno);
    unlinkat(way->to, temporary, 0);
    return false;
  }
  n_bytes += way->st.st_size;
  return true;
}

static void copy_piece(void *what) {
  Piece *piece = what;
  Big *big = piece->big;
  bool good = big->failed || copy_range(big->in, big->out, piece->at, piece->at + piece->size);
  if (!good && !atomic_exchange(&big->failed, true)) complain("cannot copy", big->way.path, errno);
  free(piece);
  if (atomic_fetch_sub(&big->left, 1) > 1) return;
  if (!big->failed) {
    settle(&big->way, big->in, big->out, big->temporary);
  } else {
    unlinkat(big->way.to, big->temporary, 0);
    close(big->out);
  }
  close(big->in);
  close(big->way.to);
  free((char *)big->way.to_name);
  free((char *)big->way.path);
  free((char *)big->way.to_path);
  free(big);
}

static void copy_in_pieces(const Way *way, int in, int out, const char *temporary) {
  Big *big = calloc(1, sizeof *big);
  big->way = *way;
  big->way.to = fcntl(way->to, F_DUPFD_CLOEXEC, 0);
  big->way.to_name = strdup(way->to_name);
  big->way.path = strdup(way->path);
  big->way.to_path = strdup(way->to_path);
  big->in = in, big->out = out;
  strcpy(big->temporary, temporary);
  Job *first = 0, *last = 0;
  int count = 0;
  for (off_t at = 0; at < way->st.st_size; at += PIECE, count++) {
    Piece *piece = calloc(1, sizeof *piece);
    *piece = (Piece){big, at, way->st.st_size - at < PIECE ? way->st.st_size - at : PIECE};
    Job *job = work_job(way->dir, copy_piece, piece);
    job->next = first;
    if (!last) last = job;
    first = job;
  }
  big->left = count;
  push_jobs(first, last, count);
}

// A file that is replaced keeps its mode, unless the source's is asked for.
static void old_mode(const Way *way, int out) {
  struct stat st;
  if (keep.mode || (way->dir && way->dir->fresh)) return;
  if (!fstatat(way->to, way->to_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode)) fchmod(out, st.st_mode & 07777);
}

static bool copy_file(Way *way) {
  int in = openat(way->from, way->name, O_RDONLY | (way->follow ? 0 : O_NOFOLLOW) | O_CLOEXEC | O_NONBLOCK);
  if (in < 0 || fstat(in, &way->st)) {
    complain("cannot open", way->path, errno);
    if (in >= 0) close(in);
    return false;
  }
  if (!S_ISREG(way->st.st_mode) && way->dir) {
    complain("it was replaced while it was copied:", way->path, 0);
    close(in);
    return false;
  }
  char temporary[40];
  temporary_name(temporary);
  int out = openat(way->to, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                   keep.mode ? 0600 : way->st.st_mode & 0777);
  if (out < 0) {
    complain("cannot create", way->to_path, errno);
    close(in);
    return false;
  }
  old_mode(way, out);
  if (way->dir && way->st.st_size > BIG && way->st.st_nlink == 1 && keep.reflink != 2 && keep.sparse == 1 &&
      (off_t)way->st.st_blocks * 512 >= way->st.st_size && (!keep.reflink || no_clone)) {
    copy_in_pieces(way, in, out, temporary);
    return true;
  }
  bool good = copy_data(in, out, &way->st);
  if (!good) {
    complain("cannot copy", way->path, errno);
    unlinkat(way->to, temporary, 0);
    close(out);
  } else {
    good = settle(way, in, out, temporary);
  }
  close(in);
  return good;
}

// A link, a pipe, a socket, a device: made at once, or beside what is there and renamed.
static bool make_special(const Way *way, const char *text) {
  char temporary[40];
  const char *name = way->to_name;
  mode_t mode = keep.mode ? way->st.st_mode : way->st.st_mode & ~(mode_t)07000;
  for (int i = 0; i < 2; i++) {
    int failed = text ? symlinkat(text, way->to, name)
                      : mknodat(way->to, name, mode, way->st.st_rdev);
    if (failed && errno == EEXIST && !i) { temporary_name(temporary); name = temporary; continue; }
    if (failed) { complain("cannot create", way->to_path, errno); return false; }
    break;
  }
  if (keep.owner && fchownat(way->to, name, way->st.st_uid, way->st.st_gid, AT_SYMLINK_NOFOLLOW) && errno != EPERM)
    complain("cannot keep the owner of", way->to_path, errno);
  if (!text && keep.mode) set_mode(way->to, name, way->st.st_mode & 07777, AT_SYMLINK_NOFOLLOW);
  struct timespec times[] = {way->st.st_atim, way->st.st_mtim};
  if (keep.times) utimensat(way->to, name, times, AT_SYMLINK_NOFOLLOW);
  if (name == way->to_name || !renameat(way->to, name, way->to, way->to_name)) return true;
  complain("cannot create", way->to_path, errno);
  unlinkat(way->to, name, 0);
  return false;
}

static bool copy_symlink(const Way *way) {
  char text[4097];
  ssize_t size = readlinkat(way->from, way->name, text, sizeof text - 1);
  if (size < 0) { complain("cannot read", way->path, errno); return false; }
  text[size] = 0;
  return make_special(way, text);
}

static bool copy_plain(Way *way) {
  if (S_ISREG(way->st.st_mode)) return copy_file(way);
  return S_ISLNK(way->st.st_mode) ? copy_symlink(way) : make_special(way, 0);
}

// Another name of a file that was copied before. What was linked is looked at: nobody leads us to another file.
static bool link_again(const Way *way, const Link *link) {
  char temporary[40];
  temporary_name(temporary);
  struct stat st;
  if (linkat(AT_FDCWD, link->path, way->to, temporary, 0)) { complain("cannot link", way->to_path, errno); return false; }
  if (fstatat(way->to, temporary, &st, AT_SYMLINK_NOFOLLOW) || st.st_ino != link->to_ino || st.st_dev != link->to_dev) {
    unlinkat(way->to, temporary, 0);
    complain("another file came between:", way->to_path, 0);
    return false;
  }
  if (!renameat(way->to, temporary, way->to, way->to_name)) { unlinkat(way->to, temporary, 0); return true; }
  complain("cannot link", way->to_path, errno);
  unlinkat(way->to, temporary, 0);
  return false;
}

bool copy_entry(Way *way) {
  if (!keep.links || way->st.st_nlink < 2) return copy_plain(way);
  bool first;
  Link *link = link_of(way->st.st_dev, way->st.st_ino, &first);
  if (!first) return link_wait(link) && link_again(way, link);
  struct stat made;
  bool good = copy_plain(way) && !fstatat(way->to, way->to_name, &made, AT_SYMLINK_NOFOLLOW);
  if (good) link->to_dev = made.st_dev, link->to_ino = made.st_ino;
  link_ready(link, way->to_path, !good);
  return good;
}

char *target_path(const Dir *dir) {
  if (!dir->parent) return strdup(dir->to);
  char *above = target_path(dir->parent), *path = join(above, dir->name);
  free(above);
  return path;
}

// The mode of a new folder lets us write; it gets its own when all is in it.
bool make_target(Dir *dir, int fd) {
  (void)fd;
  bool temporary, made = true;
  int at = parent_grip(dir, 1, &temporary);
  const char *name = dir->parent ? dir->name : dir->to;
  dir->fresh = at != -1 && !mkdirat(at, name, 0700 | (keep.mode ? 0 : dir->st.st_mode & 01777));
  if (!dir->fresh && (at == -1 || errno != EEXIST)) made = false;
  int below = !made ? -1 : dir->parent ? open_dir_at(at, name) : open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  let_go(at, temporary);
  if (below < 0) {
    char *path = target_path(dir);
    complain("cannot create directory", path, errno == ELOOP ? ENOTDIR : errno);
    free(path);
    return false;
  }
  keep_fd(dir, 1, below, 0);
  if (dir->fd[1] < 0) close(below);
  return true;
}

void finish_target(Dir *dir) {
  bool temporary, from_temporary;
  int to = grip(dir, 1, &temporary);
  if (to < 0) return;
  int from = grip(dir, 0, &from_temporary);
  keep_meta(to, from, &dir->st, dir->path);
  if (!keep.mode && dir->fresh && (dir->st.st_mode & 0700) != 0700) fchmod(to, dir->st.st_mode & 07777 & ~umask_bits);
  let_go(from, from_temporary);
  let_go(to, temporary);
}

// One thread removes all of it. What `path` names is shown in messages.
bool remove_tree(int at, const char *name, const char *path) {
  if (!unlinkat(at, name, 0)) { told_change("remove", path, 0); return true; }
  if (errno != EISDIR && errno != EPERM) { complain("cannot remove", path, errno); return false; }
  int fd = open_dir_at(at, name);
  bool good = fd >= 0;
  Names names = {fd, 0, 0, 4096, good ? malloc(4096) : 0};
  for (const Listed *entry; fd >= 0 && (entry = next_name(&names));) {
    char *below = join(path, entry->name);
    good &= remove_tree(fd, entry->name, below);
    free(below);
  }
  free(names.block);
  if (fd >= 0) close(fd);
  if (good && !unlinkat(at, name, AT_REMOVEDIR)) { told_change("remove", path, 0); return true; }
  if (good || fd < 0) complain("cannot remove", path, errno);
  return false;
}
