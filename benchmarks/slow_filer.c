// A filer by FUSE: everything below $FILER_ROOT, each call after $FILER_US microseconds, as a round trip would take.
// What the kernel keeps of names and attributes, it keeps for $FILER_KEEP_S seconds (0: each look is a round trip).
// A listing is one round trip for about 128 names. Unlike a library that makes calls sleep, this one has a ceiling:
// its own work on this machine.
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { NAMES = 128 };
static int root;
static long us;
static double kept;

// Below the root's descriptor: "/a/b" is "a/b" there, "/" is ".".
static const char *below(const char *path) { return path[1] ? path + 1 : "."; }

static void travel(void) {
  static __thread int exact;
  if (!us) return;
  if (!exact) exact = 1, prctl(PR_SET_TIMERSLACK, 1);
  struct timespec time = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&time, 0);
}

static int told(long result) { return result < 0 ? -errno : 0; }

static void *begin(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->use_ino = 1;
  config->attr_timeout = config->entry_timeout = kept;
  config->negative_timeout = 0;
  return 0;
}

static int f_getattr(const char *path, struct stat *st, struct fuse_file_info *info) {
  (void)info;
  travel();
  return told(fstatat(root, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int f_readlink(const char *path, char *into, size_t size) {
  travel();
  ssize_t got = readlinkat(root, below(path), into, size - 1);
  if (got < 0) return -errno;
  into[got] = 0;
  return 0;
}

static int f_readdir(const char *path, void *into, fuse_fill_dir_t fill, off_t from, struct fuse_file_info *info,
                     enum fuse_readdir_flags flags) {
  (void)from, (void)info;
  travel();
  int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *stream = fd < 0 ? 0 : fdopendir(fd);
  if (!stream) return -errno;
  int names = 0;
  for (struct dirent *entry; (entry = readdir(stream));) {
    struct stat st = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
    int whole = (flags & FUSE_READDIR_PLUS) && !fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW);
    if (++names % NAMES == 0) travel();
    if (fill(into, entry->d_name, &st, 0, whole ? FUSE_FILL_DIR_PLUS : 0)) break;
  }
  closedir(stream);
  return 0;
}

static int f_mkdir(const char *path, mode_t mode) { travel(); return told(mkdirat(root, below(path), mode)); }
static int f_unlink(const char *path) { travel(); return told(unlinkat(root, below(path), 0)); }
static int f_rmdir(const char *path) { travel(); return told(unlinkat(root, below(path), AT_REMOVEDIR)); }
static int f_symlink(const char *text, const char *path) { travel(); return told(symlinkat(text, root, below(path))); }

static int f_rename(const char *from, const char *to, unsigned flags) {
  travel();
  return told(renameat2(root, below(from), root, below(to), flags));
}

static int f_link(const char *from, const char *to) {
  travel();
  return told(linkat(root, below(from), root, below(to), 0));
}

static int f_chmod(const char *path, mode_t mode, struct fuse_file_info *info) {
  (void)info;
  travel();
  return told(fchmodat(root, below(path), mode, 0));
}

static int f_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *info) {
  (void)info;
  travel();
  return told(fchownat(root, below(path), user, group, AT_SYMLINK_NOFOLLOW));
}

static int f_truncate(const char *path, off_t size, struct fuse_file_info *info) {
  travel();
  if (info) return told(ftruncate(info->fh, size));
  int fd = openat(root, below(path), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int done = told(ftruncate(fd, size));
  close(fd);
  return done;
}

static int f_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info) {
  (void)info;
  travel();
  return told(utimensat(root, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int f_open(const char *path, struct fuse_file_info *info) {
  travel();
  int fd = openat(root, below(path), info->flags | O_CLOEXEC);
  info->fh = fd;
  return told(fd);
}

static int f_create(const char *path, mode_t mode, struct fuse_file_info *info) {
  travel();
  int fd = openat(root, below(path), info->flags | O_CREAT | O_CLOEXEC, mode);
  info->fh = fd;
  return told(fd);
}

static int f_read(const char *path, char *into, size_t size, off_t at, struct fuse_file_info *info) {
  (void)path;
  travel();
  ssize_t got = pread(info->fh, into, size, at);
  return got < 0 ? -errno : (int)got;
}

static int f_write(const char *path, const char *data, size_t size, off_t at, struct fuse_file_info *info) {
  (void)path;
  travel();
  ssize_t got = pwrite(info->fh, data, size, at);
  return got < 0 ? -errno : (int)got;
}

static int f_release(const char *path, struct fuse_file_info *info) {
  (void)path;
  return told(close(info->fh));
}

static int f_statfs(const char *path, struct statvfs *st) {
  (void)path;
  travel();
  return told(fstatvfs(root, st));
}

static const struct fuse_operations operations = {
    .init = begin, .getattr = f_getattr, .readlink = f_readlink, .readdir = f_readdir, .mkdir = f_mkdir,
    .unlink = f_unlink, .rmdir = f_rmdir, .symlink = f_symlink, .rename = f_rename, .link = f_link,
    .chmod = f_chmod, .chown = f_chown, .truncate = f_truncate, .utimens = f_utimens, .open = f_open,
    .create = f_create, .read = f_read, .write = f_write, .release = f_release, .statfs = f_statfs};

int main(int argc, char **argv) {
  const char *folder = getenv("FILER_ROOT"), *delay = getenv("FILER_US"), *keep = getenv("FILER_KEEP_S");
  root = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (root < 0) return fprintf(stderr, "FILER_ROOT is no folder\n"), 2;
  us = delay ? atol(delay) : 0;
  kept = keep ? atof(keep) : 0;
  umask(0);
  return fuse_main(argc, argv, &operations, 0);
}
