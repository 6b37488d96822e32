// What cp and sync share: copies of one entry that are either whole or not there.
#pragma once
#include "pf.h"

enum { BLOCK = 1 << 18 };  // of `mine`

typedef struct Keep { bool mode, owner, times, links, xattrs; int sparse, reflink; } Keep;  // 0 never, 1 auto, 2 always
extern Keep keep;

// One entry on its way: from `name` below `from` to `to_name` below `to`.
typedef struct Way {
  Dir *dir;            // of the source; NULL: the user named the file
  int from, to;
  const char *name, *to_name;
  const char *path;    // as it is shown
  const char *to_path;
  struct stat st;
  bool follow;         // a link that the user named
} Way;

bool copy_entry(Way *way);                       // any type but a folder; false: complained
void keep_meta(int fd, int from, const struct stat *st, const char *path);
bool make_target(Dir *dir, int fd);              // the folder of the target, opened
void finish_target(Dir *dir);
char *target_path(const Dir *dir);
bool remove_tree(int at, const char *name, const char *path);
