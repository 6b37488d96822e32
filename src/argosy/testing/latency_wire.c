/* Two TAP devices and a delay between them: latency and loss where the kernel has no netem.

   latency_wire NETNS_FILE INSIDE OUTSIDE SETTINGS

   INSIDE is made in the network namespace, OUTSIDE in ours. Frames go both ways in order, each `delay` late.
   SETTINGS holds "<one way, ns> <loss per mille>" and is read again on SIGUSR1. Prints "up" when ready. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 32768, FRAME_BYTES = 2048, BURST = 64 };

struct frame {
  long long due_ns;
  ssize_t size;
  char bytes[FRAME_BYTES];
};

struct lane { /* frames on their way in one direction: a ring */
  struct frame *ring;
  unsigned first, end;
};

static volatile sig_atomic_t settings_changed = 1;

static void on_signal(int number) {
  (void)number;
  settings_changed = 1;
}

static long long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int open_tap(const char *name) {
  struct ifreq request = {0};
  int handle = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (handle < 0 || ioctl(handle, TUNSETIFF, &request)) {
    perror(name);
    exit(1);
  }
  return handle;
}

/* Writes what is due; returns when the next frame is (0: none waits). */
static long long deliver(struct lane *lane, int to) {
  long long now = now_ns();
  while (lane->first != lane->end) {
    struct frame *frame = &lane->ring[lane->first % FRAMES];
    if (frame->due_ns > now) return frame->due_ns;
    if (write(to, frame->bytes, frame->size) < 0) { /* a full queue drops it, as a switch does */
    }
    lane->first++;
  }
  return 0;
}

static void take_in(struct lane *lane, int from, long long delay_ns, int loss) {
  for (int i = 0; i < BURST; i++) {
    struct frame spare, *frame = lane->end - lane->first == FRAMES ? &spare : &lane->ring[lane->end % FRAMES];
    frame->size = read(from, frame->bytes, FRAME_BYTES);
    if (frame->size <= 0) return;
    if (frame == &spare || (loss && rand() % 1000 < loss)) continue;
    frame->due_ns = now_ns() + delay_ns;
    lane->end++;
  }
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  prctl(PR_SET_TIMERSLACK, 1);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGUSR1, on_signal);
  int outside_ns = open("/proc/self/ns/net", O_RDONLY), inside_ns = open(arguments[1], O_RDONLY);
  if (setns(inside_ns, 0)) {
    perror("setns");
    return 1;
  }
  int tap[2];
  tap[0] = open_tap(arguments[2]);
  setns(outside_ns, 0);
  tap[1] = open_tap(arguments[3]);
  struct lane lane[2] = {{calloc(FRAMES, sizeof(struct frame)), 0, 0}, {calloc(FRAMES, sizeof(struct frame)), 0, 0}};
  puts("up");
  fflush(stdout);
  long long delay_ns = 0;
  int loss = 0;
  for (;;) {
    if (settings_changed) {
      settings_changed = 0;
      FILE *file = fopen(arguments[4], "r");
      if (file) {
        if (fscanf(file, "%lld %d", &delay_ns, &loss) != 2) delay_ns = loss = 0;
        fclose(file);
      }
    }
    long long next_ns = 0;
    for (int i = 0; i < 2; i++) {
      long long due_ns = deliver(&lane[i], tap[!i]);
      if (due_ns && (!next_ns || due_ns < next_ns)) next_ns = due_ns;
    }
    struct pollfd watched[2] = {{tap[0], POLLIN, 0}, {tap[1], POLLIN, 0}};
    long long wait_ns = next_ns ? next_ns - now_ns() : -1;
    if (next_ns && wait_ns < 0) wait_ns = 0;
    struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
    if (ppoll(watched, 2, next_ns ? &wait : NULL, NULL) <= 0) continue;
    for (int i = 0; i < 2; i++)
      if (watched[i].revents) take_in(&lane[i], tap[i], delay_ns, loss);
  }
}
