/*
 * Writers that save KPI files as applications do: open(O_WRONLY|O_CREAT|O_TRUNC), one write, close; each its own files.
 *
 *   writer DIRECTORY WRITERS FILES DURATION_MS SAVES_MAX RATE [STAMPS]
 *
 * WRITERS processes save into FILES files each (writer-<w>-<f>), until DURATION_MS passed or each has made SAVES_MAX
 * saves, as fast as they can or (RATE > 0) at RATE saves a second each, catching up after a delay. A save is two lines,
 * "writer,sequence" and the values; the sequence counts from 1 for each writer.
 * With STAMPS, the file gets one int64 for each save: writer by writer, the CLOCK_MONOTONIC nanoseconds at which its
 * close returned, in order of sequence; 0 where close failed.
 *
 * Prints one JSON object: {"saves", "failures", "elapsed_us", "per_second", "p50_us", "p99_us", "max_us", "counts"}.
 * Latency is from before open to after close.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { writers_max = 256, path_bytes_max = 4096 };

struct shared {
  _Atomic int ready_count;
  _Atomic int go;
  int64_t counts[writers_max];
  int64_t failures[writers_max];
  int64_t ends_ns[writers_max];
};

struct plan {
  const char *directory;
  int writers;
  int files;
  int64_t duration_ns;
  int64_t saves_max;
  int64_t interval_ns;
};

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void sleep_until(int64_t at_ns) {
  struct timespec until = {at_ns / 1000000000, at_ns % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
}

static void *map_shared(size_t byte_count) {
  void *memory = mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("writer: mmap");
    exit(1);
  }
  return memory;
}

static int save(const char *path, int writer, int64_t sequence) {
  char content[128];
  int byte_count = snprintf(content, sizeof content, "writer,sequence\n%d,%lld\n", writer, (long long)sequence);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) return -1;
  int is_written = write(fd, content, (size_t)byte_count) == byte_count;
  return close(fd) == 0 && is_written ? 0 : -1;
}

static void run_writer(const struct plan *plan, int writer, struct shared *shared, uint32_t *latencies_ns,
                       int64_t *stamps_ns) {
  char path[path_bytes_max];
  shared->ready_count++;
  while (!shared->go) usleep(200);
  int64_t start_ns = now_ns();
  int64_t count = 0;
  int64_t due_ns = start_ns;
  while (count < plan->saves_max) {
    if (plan->interval_ns > 0) {
      due_ns += plan->interval_ns;
      if (due_ns > now_ns()) sleep_until(due_ns);
    }
    int64_t offered_ns = now_ns();
    if (offered_ns - start_ns >= plan->duration_ns) break;
    snprintf(path, sizeof path, "%s/writer-%d-%d", plan->directory, writer, (int)(count % plan->files));
    int is_failed = save(path, writer, count + 1) != 0;
    if (is_failed && shared->failures[writer]++ == 0) perror(path);
    int64_t closed_ns = now_ns();
    latencies_ns[count] = (uint32_t)(closed_ns - offered_ns);
    stamps_ns[count] = is_failed ? 0 : closed_ns;
    count++;
  }
  shared->counts[writer] = count;
  shared->ends_ns[writer] = now_ns();
}

static int compare(const void *left, const void *right) {
  uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
  return a < b ? -1 : a > b;
}

static void report(const struct plan *plan, const struct shared *shared, uint32_t *latencies_ns, int64_t start_ns) {
  int64_t saves = 0, failures = 0, end_ns = start_ns;
  for (int w = 0; w < plan->writers; w++) {
    memmove(latencies_ns + saves, latencies_ns + w * plan->saves_max, (size_t)shared->counts[w] * sizeof *latencies_ns);
    saves += shared->counts[w];
    failures += shared->failures[w];
    if (shared->ends_ns[w] > end_ns) end_ns = shared->ends_ns[w];
  }
  qsort(latencies_ns, (size_t)saves, sizeof *latencies_ns, compare);
  double elapsed_us = (double)(end_ns - start_ns) / 1e3;
  int64_t last = saves > 0 ? saves - 1 : 0;
  printf("{\"saves\":%lld,\"failures\":%lld,\"elapsed_us\":%.0f,\"per_second\":%.1f,", (long long)saves,
         (long long)failures, elapsed_us, (double)(saves - failures) * 1e6 / elapsed_us);
  printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"counts\":[", latencies_ns[saves / 2] / 1e3,
         latencies_ns[saves * 99 / 100] / 1e3, latencies_ns[last] / 1e3);
  for (int w = 0; w < plan->writers; w++) printf("%s%lld", w ? "," : "", (long long)shared->counts[w]);
  printf("]}\n");
}

static void write_stamps(const char *path, const struct plan *plan, const struct shared *shared, int64_t *stamps_ns) {
  FILE *file = fopen(path, "w");
  if (!file) {
    perror(path);
    exit(1);
  }
  for (int w = 0; w < plan->writers; w++) {
    fwrite(stamps_ns + w * plan->saves_max, sizeof *stamps_ns, (size_t)shared->counts[w], file);
  }
  fclose(file);
}

int main(int argc, char **argv) {
  if (argc < 7 || atoi(argv[2]) < 1 || atoi(argv[2]) > writers_max || atoi(argv[3]) < 1) {
    fprintf(stderr, "usage: writer DIRECTORY WRITERS FILES DURATION_MS SAVES_MAX RATE [STAMPS]\n");
    return 2;
  }
  struct plan plan = {argv[1], atoi(argv[2]), atoi(argv[3]), atoll(argv[4]) * 1000000, atoll(argv[5]), 0};
  if (atof(argv[6]) > 0) plan.interval_ns = (int64_t)(1e9 / atof(argv[6]));
  size_t saves_max = (size_t)plan.writers * (size_t)plan.saves_max;
  struct shared *shared = map_shared(sizeof *shared);
  uint32_t *latencies_ns = map_shared((saves_max + 1) * sizeof *latencies_ns);
  int64_t *stamps_ns = map_shared((saves_max + 1) * sizeof *stamps_ns);
  for (int w = 0; w < plan.writers; w++) {
    pid_t pid = fork();
    if (pid < 0) {
      perror("writer: fork");
      return 1;
    }
    if (pid == 0) {
      run_writer(&plan, w, shared, latencies_ns + w * plan.saves_max, stamps_ns + w * plan.saves_max);
      _exit(0);
    }
  }
  while (shared->ready_count < plan.writers) usleep(1000);
  int64_t start_ns = now_ns();
  shared->go = 1;
  for (int w = 0; w < plan.writers; w++) wait(NULL);
  if (argc > 7) write_stamps(argv[7], &plan, shared, stamps_ns);
  report(&plan, shared, latencies_ns, start_ns);
  return 0;
}
