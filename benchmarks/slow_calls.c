// LD_PRELOAD: each call that would be a round trip to a filer sleeps $SLOW_US microseconds. A filer without limits
// and without load on this machine: what is measured is the client. A listing costs one call per 128 names, a file
// that was written one more when it is closed.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char written[1 << 16];  // by descriptor

static void wait_for_it(void) {
  static long us = -1;
  static __thread int exact;
  if (us < 0) us = getenv("SLOW_US") ? atol(getenv("SLOW_US")) : 0;
  if (!us) return;
  if (!exact) exact = 1, prctl(PR_SET_TIMERSLACK, 1);
  struct timespec time = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&time, 0);
}

// The real one, after a wait. `typed`: parameters with their types, `given`: their names.
#define SLOW(type, name, typed, given) \
  type name typed { \
    static __typeof__(name) *real; \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    wait_for_it(); \
    return real given; \
  }

SLOW(int, fstatat, (int at, const char *path, struct stat *st, int flags), (at, path, st, flags))
SLOW(int, fstatat64, (int at, const char *path, struct stat64 *st, int flags), (at, path, st, flags))
SLOW(int, stat, (const char *path, struct stat *st), (path, st))
SLOW(int, stat64, (const char *path, struct stat64 *st), (path, st))
SLOW(int, lstat, (const char *path, struct stat *st), (path, st))
SLOW(int, lstat64, (const char *path, struct stat64 *st), (path, st))
SLOW(int, statx, (int at, const char *path, int flags, unsigned mask, struct statx *st), (at, path, flags, mask, st))
SLOW(int, chmod, (const char *path, mode_t mode), (path, mode))
SLOW(int, fchmodat, (int at, const char *path, mode_t mode, int flags), (at, path, mode, flags))
SLOW(int, fchmod, (int fd, mode_t mode), (fd, mode))
SLOW(int, unlink, (const char *path), (path))
SLOW(int, unlinkat, (int at, const char *path, int flags), (at, path, flags))
SLOW(int, rmdir, (const char *path), (path))
SLOW(int, mkdir, (const char *path, mode_t mode), (path, mode))
SLOW(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
SLOW(int, renameat, (int from, const char *old, int to, const char *new), (from, old, to, new))
SLOW(int, linkat, (int from, const char *old, int to, const char *new, int flags), (from, old, to, new, flags))
SLOW(int, symlinkat, (const char *text, int at, const char *path), (text, at, path))
SLOW(ssize_t, copy_file_range, (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags),
     (in, from, out, to, size, flags))
SLOW(DIR *, opendir, (const char *path), (path))

// One call per 128 names.
static void listed(const char *block, long size) {
  static __thread int names;
  for (long at = 0; at < size; at += *(unsigned short *)(block + at + 16))
    if (++names % 128 == 0) wait_for_it();
}

long syscall(long number, ...) {
  static long (*real)(long, ...);
  if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_list more;
  va_start(more, number);
  long a = va_arg(more, long), b = va_arg(more, long), c = va_arg(more, long), d = va_arg(more, long);
  va_end(more);
  if (number == 452) wait_for_it();  // fchmodat2
  long done = real(number, a, b, c, d);
  if (number == SYS_getdents64 && done > 0) listed((char *)b, done);
  return done;
}

#define OPENED(name, typed, given) \
  int name typed { \
    static int (*real) typed; \
    if (!real) real = (int (*) typed)dlsym(RTLD_NEXT, #name); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
      va_list more; \
      va_start(more, flags); \
      mode = va_arg(more, mode_t); \
      va_end(more); \
    } \
    wait_for_it(); \
    int fd = real given; \
    if (fd >= 0 && fd < (int)sizeof written) written[fd] = (flags & O_ACCMODE) != O_RDONLY; \
    return fd; \
  }

OPENED(open, (const char *path, int flags, ...), (path, flags, mode))
OPENED(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENED(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENED(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

ssize_t read(int fd, void *into, size_t size) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "read");
  if (fd > 2) wait_for_it();
  return real(fd, into, size);
}

int close(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "close");
  if (fd >= 0 && fd < (int)sizeof written && written[fd]) written[fd] = 0, wait_for_it();
  return real(fd);
}

#define LISTED(type, name) \
  type *name(DIR *dir) { \
    static type *(*real)(DIR *); \
    static __thread int names; \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    if (++names % 128 == 0) wait_for_it(); \
    return real(dir); \
  }

LISTED(struct dirent, readdir)
LISTED(struct dirent64, readdir64)
