// Jobs and threads. A job is a folder to read or a slice of its entries. There are two threads until calls turn
// out to sleep: a call that goes to a filer puts its thread to sleep once, one that is answered from memory never
// does. Voluntary context switches per entry tell the two apart on an idle machine as on a busy one. Then the
// number doubles while that still brings more entries per second.
#include "pf.h"
#include <sys/resource.h>

enum { LOOK_NS = 10000000, LONG_NS = 100000000, ENOUGH = 32, STACK = 256 << 10 };
static const double SLEEPY = 0.4, FASTER = 1.15;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more, over;
static Job *head;
static long unfinished;  // jobs that wait or run
static int allowed = FIRST_THREADS, most = MOST_THREADS, started;
static bool fixed, progress;
static atomic_ullong sleeps;
static atomic_bool stopped;
static struct timespec begun;

void stop_early(void) { stopped = true; }
bool stopping(void) { return stopped; }
int threads_used(void) { return allowed; }

static int64_t since(const struct timespec *from) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - from->tv_sec) * 1000000000LL + now.tv_nsec - from->tv_nsec;
}

double seconds(void) { return since(&begun) / 1e9; }

void pool_options(long threads, bool tell) {
  progress = tell;
  if (threads > 0) fixed = true, allowed = most = threads > MOST_THREADS ? MOST_THREADS : threads;
}

// Last in, first out: what was found last is worked on first, so that few folders are open at a time.
void push_jobs(Job *first, Job *last, long count) {
  pthread_mutex_lock(&mutex);
  last->next = head;
  head = first;
  unfinished += count;
  if (count > 1) pthread_cond_broadcast(&more);
  else pthread_cond_signal(&more);
  pthread_mutex_unlock(&mutex);
}

void count_sleeps(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  mine.calm = usage.ru_nvcsw == mine.slept;
  if (!mine.calm) sleeps += usage.ru_nvcsw - mine.slept;
  mine.slept = usage.ru_nvcsw;
}

// Those while it waited for a job do not count.
static void count_waits(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  mine.slept = usage.ru_nvcsw;
}

static void *work(void *argument) {
  mine.number = (long)argument;
  bool waited = true;  // since its sleeps were counted
  for (unsigned jobs = 0;;) {
    pthread_mutex_lock(&mutex);
    if (unfinished && (!head || mine.number >= allowed)) {
      pthread_mutex_unlock(&mutex);
      flush_output();
      pthread_mutex_lock(&mutex);
    }
    for (; unfinished && (!head || mine.number >= allowed); waited = true) pthread_cond_wait(&more, &mutex);
    if (!unfinished) break;
    Job *job = head;
    head = job->next;
    pthread_mutex_unlock(&mutex);
    if (waited) count_waits();
    run_job(job);
    waited = !mine.calm || jobs++ % 8 == 0;
    if (waited) count_sleeps();
    pthread_mutex_lock(&mutex);
    if (!--unfinished) pthread_cond_broadcast(&more), pthread_cond_broadcast(&over);
    pthread_mutex_unlock(&mutex);
  }
  pthread_mutex_unlock(&mutex);
  flush_output();
  return 0;
}

static void start_threads(pthread_t *threads, int wanted) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK);
  for (; started < wanted; started++)
    if (pthread_create(&threads[started], &attributes, work, (void *)(long)started)) break;
  pthread_attr_destroy(&attributes);
}

static void tell(bool last) {
  static int64_t told;
  int64_t now = since(&begun);
  bool terminal = isatty(2);
  if (!progress || (!last && now - told < (terminal ? 200000000LL : 1000000000LL))) return;
  told = now;
  char line[200], size[24], *at = line;
  uint64_t figures[] = {n_entries + n_dirs, n_errors, allowed};
  const char *words[] = {" entries, ", " errors, ", " threads"};
  for (int i = 0; i < 3; i++) {
    at = stpcpy(digits(at, figures[i]), words[i]);
    if (i == 0 && n_bytes) at = stpcpy(stpcpy(at, human(n_bytes, 1, size)), " bytes, ");
  }
  *at++ = terminal && !last ? '\r' : '\n';
  if (write(2, line, at - line) < 0) progress = false;
}

// One look at how it goes; doubles the threads while calls sleep and more threads bring more.
static void look(pthread_t *threads) {
  static unsigned long long entries, slept;
  static int64_t at;
  static double best;
  static int calm;
  unsigned long long done = n_entries + n_dirs, sleeping = sleeps;
  int64_t now = since(&begun);
  if (fixed || (done - entries < ENOUGH && now - at < LONG_NS)) return;
  double per_entry = done > entries ? (double)(sleeping - slept) / (done - entries) : 1;
  double rate = (done - entries) * 1e9 / (now - at);
  bool faster = rate > best * FASTER;
  entries = done, slept = sleeping, at = now;
  if (per_entry > SLEEPY && allowed < most && (faster || calm < 2)) {
    calm = faster ? 0 : calm + 1;
    pthread_mutex_lock(&mutex);
    allowed = allowed * 2 > most ? most : allowed * 2;
    int wanted = allowed;
    pthread_cond_broadcast(&more);
    pthread_mutex_unlock(&mutex);
    start_threads(threads, wanted);
  }
  if (rate > best) best = rate;
}

void run_pool(void) {
  static pthread_t threads[MOST_THREADS];
  static bool prepared;
  if (!prepared) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&over, &attributes);
    pthread_cond_init(&more, &attributes);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    walk_limits(most);
    prepared = true;
  }
  started = 0;
  start_threads(threads, allowed);
  pthread_mutex_lock(&mutex);
  while (unfinished) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_NS;
    if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
    if (!pthread_cond_timedwait(&over, &mutex, &until)) continue;
    pthread_mutex_unlock(&mutex);
    look(threads);
    tell(false);
    pthread_mutex_lock(&mutex);
  }
  pthread_mutex_unlock(&mutex);
  for (int i = 0; i < started; i++) pthread_join(threads[i], 0);
  tell(true);
}
