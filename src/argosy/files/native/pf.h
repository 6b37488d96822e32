// What the parts of the parallel file tools know of each other.
//
// pool.c  jobs, threads, and when there shall be more of them      walk.c  folders: open, read, cut, leave
// text.c  output, messages, numbers                                 *.c     one file for each tool
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define _FILE_OFFSET_BITS 64
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLICE = 64, MOST_THREADS = 256, FIRST_THREADS = 2 };

// A folder that is worked on. It lives until it and all below it are done (`refs`): then it is left.
typedef struct Dir {
  struct Dir *parent;      // none: the user named it
  char *path;              // as it is shown
  const char *name;        // its last part; for what the user named, all of it
  int fd[2];               // of the source, of the target (cp, sync); -1: opened anew for each use
  dev_t dev[2];            // what was opened, so that opening anew cannot end elsewhere
  ino_t ino[2];
  atomic_int refs;
  int depth;
  bool failed;             // it, or for rm something below it, could not be worked on
  int error;               // why it could not be opened
  bool seen;               // `st` is filled in
  bool named;              // the user named it
  bool fresh;              // cp, sync: its target was made by us, so that nothing is in the way there
  struct stat st;
  atomic_ullong bytes, inodes;  // du: of itself and all below
  atomic_ullong own_bytes, own_inodes;  // du: without folders below
  char *to;                // cp, sync: name of the target in its parent; for what the user named, a path
  void *more;              // of the tool
} Dir;

// What a tool does at each point of the walk. NULL: nothing.
typedef struct Tool {
  const char *name;
  int (*start)(int argc, char **argv);               // reads options, begins the walk; exit status, or -1: go on
  bool (*before)(Dir *dir);                          // in its parent, not opened; false: not entered
  bool (*enter)(Dir *dir, int fd);                   // opened, `st` filled in; false: not read
  void (*entry)(Dir *dir, int fd, const char *name, int type);  // anything but a folder
  void (*leave)(Dir *dir);                           // all below it is done
  int (*finish)(void);                               // exit status
  bool slices;                                       // several threads may work in one folder
  bool tries_unread;                                 // leave() complains about what could not be opened
  bool follows;                                      // a link that the user named
  int trouble;                                       // exit status of wrong options
} Tool;

extern const Tool *tool;
extern bool opt_json, opt_dryrun, opt_verbose, opt_quiet, opt_one_fs;
extern mode_t umask_bits;
extern atomic_ullong n_entries, n_dirs, n_bytes, n_changed, n_errors;

// pool.c
typedef struct Job { struct Job *next; Dir *dir; char *names; int count; bool scan; void (*work)(void *); void *what; } Job;
void push_jobs(Job *first, Job *last, long count);
void run_pool(void);                 // until no job is left
void pool_options(long threads, bool progress);
int threads_used(void);
double seconds(void);
void count_sleeps(void);             // of this thread, since it last said
void stop_early(void);
bool stopping(void);

// walk.c
void walk_limits(int threads);
Dir *walk_root(const char *path, const char *to, const struct stat *st);
void run_job(Job *job);
Job *work_job(Dir *dir, void (*work)(void *what), void *what);
int grip(Dir *dir, int side, bool *temporary);       // an fd of an opened folder, or -1 with errno
int parent_grip(Dir *dir, int side, bool *temporary);  // AT_FDCWD for what the user named
void let_go(int fd, bool temporary);
void keep_fd(Dir *dir, int side, int fd, const struct stat *known);
int open_dir_at(int at, const char *name);
// A listing as the kernel gives it, without `.` and `..`; at its end `got` is 0, or negative with errno.
typedef struct Listed { uint64_t ino; int64_t next; unsigned short size; unsigned char type; char name[]; } Listed;
typedef struct Names { int fd; long at, got, room; char *block; } Names;
const Listed *next_name(Names *names);
char *join(const char *folder, const char *name);
const char *path_of(const char *name);               // in the folder whose entries this thread is at; until the next call
bool is_dot(const char *name);

// What a thread has of its own: its number, what it has put out, blocks to copy and compare with.
typedef struct Mine {
  long number, slept, calm;
  char *out, *block, *other, *listing, *path;
  size_t used, room, whole, path_room, folder_size;
  uint64_t bytes, inodes;  // du: of the slice that it is at
} Mine;
extern __thread Mine mine;

// text.c
void put(const char *text);
void put_bytes(const char *data, size_t size);
void put_number(uint64_t number);
char *digits(char *at, uint64_t number);             // writes them; returns the end
void put_json(const char *text);                     // in quotes
int utf8_size(const unsigned char *at);               // of the character that begins here; 0: none does
void end_record(char last);                          // of one result: it goes out whole
void flush_output(void);
void ordered_output(void);
void complain(const char *what, const char *path, int error);  // counts as an error
void note(const char *text);
int usage(const char *text, const char *word);
void told_change(const char *verb, const char *path, const char *to);
void json_summary(void);
bool output_failed(void);
const char *human(uint64_t bytes, uint64_t unit, char *into);

// options.c: the table ends with letter 0; `valued`: 1 always, 2 may be. Options without a letter have small numbers.
typedef struct Option { char letter; const char *word; char valued; } Option;
int take_options(int argc, char **argv, const Option *table, bool (*take)(int letter, const char *value));
                                                     // leaves operands in argv[1..]; how many, -1: it complained

// glob.c
bool matches(const char *pattern, const char *text, bool fold);

// modes.c
typedef struct Mode Mode;
Mode *parse_mode(const char *text);                  // NULL: not a mode
Mode *mode_of(mode_t mode);
mode_t apply_mode(const Mode *mode, mode_t old, bool folder, mode_t umask_bits);
int set_mode(int at, const char *name, mode_t mode, int flags);
bool parse_number(const char *text, uint64_t *into);
bool id_of(const char *name, bool group, uint32_t *id);

// links.c
bool first_of(dev_t dev, ino_t ino);                 // a file with several names: true for the first one met
typedef struct Link {
  struct Link *next;
  dev_t dev, to_dev;  // of the source, of the copy
  ino_t ino, to_ino;
  char *path;         // of the copy
  bool ready, failed;
} Link;
Link *link_of(dev_t dev, ino_t ino, bool *first);
void link_ready(Link *link, const char *path, bool failed);
bool link_wait(Link *link);

extern const Tool find_tool, du_tool, chmod_tool, chown_tool, cp_tool, sync_tool, rm_tool;
