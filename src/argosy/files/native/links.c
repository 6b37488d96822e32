// Files that have several names: which of them was met first, by device and number.
#include "pf.h"

enum { BUCKETS = 1 << 14 };

static Link *table[BUCKETS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

Link *link_of(dev_t dev, ino_t ino, bool *first) {
  uint64_t key = ((uint64_t)ino * 0x9e3779b97f4a7c15ULL) ^ (uint64_t)dev * 0xc2b2ae3d27d4eb4fULL;
  Link **slot = &table[key >> 40 & (BUCKETS - 1)];
  pthread_mutex_lock(&mutex);
  Link *link = *slot;
  while (link && (link->ino != ino || link->dev != dev)) link = link->next;
  *first = !link;
  if (!link) {
    link = calloc(1, sizeof *link);
    link->dev = dev, link->ino = ino, link->next = *slot;
    *slot = link;
  }
  pthread_mutex_unlock(&mutex);
  return link;
}

bool first_of(dev_t dev, ino_t ino) {
  bool first;
  link_of(dev, ino, &first);
  return first;
}

void link_ready(Link *link, const char *path, bool failed) {
  pthread_mutex_lock(&mutex);
  link->path = path ? strdup(path) : 0;
  link->ready = true, link->failed = failed;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

// Until the first name is there. False: it could not be made.
bool link_wait(Link *link) {
  pthread_mutex_lock(&mutex);
  while (!link->ready) pthread_cond_wait(&changed, &mutex);
  bool good = !link->failed;
  pthread_mutex_unlock(&mutex);
  return good;
}
