/*
 * A wall clock that can be set for one process, for LD_PRELOAD: cc -shared -fPIC. STEPPED_CLOCK_FILE holds a 64-bit integer, the
 * microseconds that the clock is set forward by (below zero: back); it is mapped, so that a change counts at once. What
 * measures durations (CLOCK_MONOTONIC and the like) is left alone, as it is by settimeofday(2).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const volatile int64_t *step_us;
static __typeof__(&clock_gettime) real_clock_gettime;

__attribute__((constructor)) static void map_step(void) {
  real_clock_gettime = REAL(clock_gettime);
  const char *path = getenv("STEPPED_CLOCK_FILE");
  int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof *step_us, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) step_us = mapped;
}

static int64_t wall_ns(void) {
  struct timespec now;
  if (real_clock_gettime == NULL) real_clock_gettime = REAL(clock_gettime);
  real_clock_gettime(CLOCK_REALTIME, &now);
  int64_t step = step_us == NULL ? 0 : *step_us;
  return (now.tv_sec * 1000000000ll) + now.tv_nsec + step * 1000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
    if (real_clock_gettime == NULL) real_clock_gettime = REAL(clock_gettime);
    return real_clock_gettime(clock, now);
  }
  int64_t ns = wall_ns();
  now->tv_sec = ns / 1000000000ll;
  now->tv_nsec = ns % 1000000000ll;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  int64_t us = wall_ns() / 1000;
  now->tv_sec = us / 1000000;
  now->tv_usec = us % 1000000;
  return 0;
}

time_t time(time_t *now) {
  time_t seconds = wall_ns() / 1000000000ll;
  if (now != NULL) *now = seconds;
  return seconds;
}
