/*
 * System calls that no common program makes on demand, each on one file: system-calls CASE PATH.
 * Prints "ok" and exits 0, or the errno's number of the call that failed and exits 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void check(int is_good) {
  if (is_good) return;
  printf("%d\n", errno);
  exit(1);
}

static int must_open(const char *path, int flags) {
  int fd = open(path, flags, 0644);
  check(fd >= 0);
  return fd;
}

static void put(int fd, const char *text, off_t offset) {
  check(pwrite(fd, text, strlen(text), offset) == (ssize_t)strlen(text));
}

/* A file outside of the mount that holds `text`. */
static int source_of(const char *text) {
  int fd = memfd_create("source", 0);
  check(fd >= 0);
  put(fd, text, 0);
  return fd;
}

static void out_of_order(const char *path) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  put(fd, "1,2\n", 8);
  put(fd, "cpu,mem\n", 0);
  check(close(fd) == 0);
}

static void sparse(const char *path) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  check(ftruncate(fd, 12) == 0);
  put(fd, "\n", 7);
  put(fd, "1,2\n", 8);
  put(fd, "cpu,mem", 0);
  check(close(fd) == 0);
}

static void read_write_without_truncation(const char *path) {
  int fd = must_open(path, O_RDWR);
  char first;
  check(pread(fd, &first, 1, 0) == 1);
  char next[] = {(char)(first + 1), 0};
  put(fd, next, 0);
  check(close(fd) == 0);
}

static void fill_mapped(int fd, const char *text) {
  size_t size_bytes = strlen(text);
  check(ftruncate(fd, (off_t)size_bytes) == 0);
  char *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  check(memory != MAP_FAILED);
  memcpy(memory, text, size_bytes);
  check(munmap(memory, size_bytes) == 0);
}

static void mapped(const char *path) {
  int fd = must_open(path, O_RDWR | O_CREAT | O_TRUNC);
  fill_mapped(fd, "cpu,mem\n1,2\n");
  check(close(fd) == 0);
}

/* The mapping outlives the descriptor: the last reference, and so RELEASE, goes with the munmap. */
static void mapped_after_close(const char *path) {
  int fd = must_open(path, O_RDWR | O_CREAT | O_TRUNC);
  const char *text = "cpu,mem\n3,4\n";
  check(ftruncate(fd, (off_t)strlen(text)) == 0);
  char *memory = mmap(NULL, strlen(text), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  check(memory != MAP_FAILED);
  check(close(fd) == 0);
  memcpy(memory, text, strlen(text));
  check(munmap(memory, strlen(text)) == 0);
}

static void with_flags(const char *path, int flags) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC | flags);
  void *block;
  check(posix_memalign(&block, 4096, 4096) == 0);
  memcpy(block, "cpu,mem\n1,2\n", 12);
  check(write(fd, block, 12) == 12);
  check(close(fd) == 0);
}

static void direct(const char *path) { with_flags(path, O_DIRECT); }

static void synchronous(const char *path) { with_flags(path, O_SYNC); }

static void send_file(const char *path) {
  int from = source_of("cpu,mem\n1,2\n");
  int to = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  off_t offset = 0;
  check(sendfile(to, from, &offset, 12) == 12);
  check(close(to) == 0);
}

/* From a file in the mount, PATH.source, so that the kernel may offer it to the file system. */
static void copy_range(const char *path) {
  char source_path[4096];
  snprintf(source_path, sizeof source_path, "%s.source", path);
  int from = must_open(source_path, O_RDONLY);
  int to = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  for (;;) {
    ssize_t byte_count = copy_file_range(from, NULL, to, NULL, 4096, 0);
    check(byte_count >= 0);
    if (byte_count == 0) break;
  }
  check(close(to) == 0);
}

static void splice_in(const char *path) {
  int ends[2];
  check(pipe(ends) == 0);
  check(write(ends[1], "cpu,mem\n1,2\n", 12) == 12);
  int to = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  check(splice(ends[0], NULL, to, NULL, 12, 0) == 12);
  check(close(to) == 0);
}

/* Two processes; each reads the number, adds one and writes it back under an exclusive lock, 20 times. */
static void count_under_lock(const char *path, int (*lock)(int)) {
  for (int child = 0; child < 2; child++) {
    if (fork() > 0) continue;
    for (int round = 0; round < 20; round++) {
      int fd = must_open(path, O_RDWR);
      check(lock(fd) == 0);
      char text[32] = {0};
      check(pread(fd, text, sizeof text - 1, 0) > 0);
      snprintf(text, sizeof text, "%d\n", atoi(text) + 1);
      put(fd, text, 0);
      check(fsync(fd) == 0);
      check(close(fd) == 0);
    }
    _exit(0);
  }
  for (int child = 0; child < 2; child++) {
    int status;
    check(wait(&status) > 0);
    if (status != 0) exit(1);
  }
}

static int lock_flock(int fd) { return flock(fd, LOCK_EX); }

static int lock_posix(int fd) { return lockf(fd, F_LOCK, 0); }

static void flocked(const char *path) { count_under_lock(path, lock_flock); }

static void lockfed(const char *path) { count_under_lock(path, lock_posix); }

static void standard_io(const char *path) {
  FILE *file = fopen(path, "w");
  check(file != NULL);
  fprintf(file, "cpu,mem\n");
  check(fflush(file) == 0);
  fprintf(file, "%d,%.1f\n", 1, 2.5);
  check(fclose(file) == 0);
}

/* The child's exit closes its copy of the descriptor, and FLUSHes, before the parent has written its line. */
static void inherited(const char *path) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (fork() == 0) {
    check(write(fd, "cpu,mem\n", 8) == 8);
    exit(0);
  }
  check(wait(NULL) > 0);
  check(write(fd, "1,2\n", 4) == 4);
  check(close(fd) == 0);
}

static void killed_writer(const char *path) {
  if (fork() == 0) {
    int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    check(write(fd, "cpu,mem\n1,", 10) == 10);
    raise(SIGKILL);
  }
  check(wait(NULL) > 0);
}

/* fsync ends a save: what follows on the same descriptor is another. */
static void fsync_between(const char *path) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  put(fd, "1\n", 0);
  check(fsync(fd) == 0);
  put(fd, "2\n", 0);
  check(close(fd) == 0);
}

static void only_nul(const char *path) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  check(write(fd, "\0\0\0\0", 4) == 4);
  check(close(fd) == 0);
}

static void temporary(const char *path) { must_open(path, O_WRONLY | O_TMPFILE); }

static void hard_link(const char *path) {
  char to[4096];
  snprintf(to, sizeof to, "%s.link", path);
  check(link(path, to) == 0);
}

static void symbolic_link(const char *path) { check(symlink("target", path) == 0); }

static void character_device(const char *path) { check(mknod(path, S_IFCHR | 0644, makedev(1, 3)) == 0); }

static void fifo(const char *path) { check(mkfifo(path, 0644) == 0); }

static void set_attribute(const char *path) { check(setxattr(path, "user.origin", "x", 1, 0) == 0); }

static void get_attribute(const char *path) {
  char value[16];
  check(getxattr(path, "user.origin", value, sizeof value) >= 0);
}

/* As programs do: ask for room, go on where the file system has no answer to give. */
static void allocate(const char *path) {
  int fd = must_open(path, O_WRONLY | O_CREAT | O_TRUNC);
  check(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 || errno == EOPNOTSUPP);
  check(posix_fallocate(fd, 0, 12) == 0);
  put(fd, "cpu,mem\n1,2\n", 0);
  check(close(fd) == 0);
}

static const struct {
  const char *name;
  void (*run)(const char *path);
} cases[] = {
    {"out-of-order", out_of_order},
    {"sparse", sparse},
    {"read-write-without-truncation", read_write_without_truncation},
    {"mmap", mapped},
    {"mmap-after-close", mapped_after_close},
    {"o-direct", direct},
    {"o-sync", synchronous},
    {"sendfile", send_file},
    {"copy-file-range", copy_range},
    {"splice", splice_in},
    {"flock", flocked},
    {"lockf", lockfed},
    {"stdio", standard_io},
    {"inherited", inherited},
    {"killed-writer", killed_writer},
    {"fsync-between", fsync_between},
    {"only-nul", only_nul},
    {"o-tmpfile", temporary},
    {"link", hard_link},
    {"symlink", symbolic_link},
    {"character-device", character_device},
    {"fifo", fifo},
    {"setxattr", set_attribute},
    {"getxattr", get_attribute},
    {"fallocate", allocate},
};

int main(int argc, char **argv) {
  for (size_t i = 0; argc == 3 && i < sizeof cases / sizeof *cases; i++) {
    if (strcmp(cases[i].name, argv[1]) != 0) continue;
    cases[i].run(argv[2]);
    puts("ok");
    return 0;
  }
  fprintf(stderr, "usage: system-calls CASE PATH\n");
  return 2;
}
