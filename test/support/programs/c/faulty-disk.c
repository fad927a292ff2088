/*
 * A disk that misbehaves on request, for LD_PRELOAD: cc -shared -fPIC. FAULTY_DISK_PATH is a directory whose files take part.
 * The fault is the content of the file FAULTY_DISK_FLAG, looked at on each call; no file, no fault:
 *
 *   read-only   writes, truncations and openings for writing fail with EROFS, as after a forced remount
 *   broken      writes, truncations and fsyncs fail with EIO
 *   die         the process is killed (once) where a thread that has synced writes to /dev/fuse: after a commit, before its reply
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault { none, read_only, broken, die };

static __thread int has_synced;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static enum fault present_fault(void) {
  const char *flag = getenv("FAULTY_DISK_FLAG");
  char text[32] = "";
  if (flag == NULL) return none;
  int fd = REAL(open)(flag, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return none;
  ssize_t length = read(fd, text, sizeof text - 1);
  REAL(close)(fd);
  if (length <= 0) return none;
  if (strncmp(text, "read-only", 9) == 0) return read_only;
  if (strncmp(text, "broken", 6) == 0) return broken;
  if (strncmp(text, "die", 3) == 0) return die;
  return none;
}

static int takes_part(const char *path) {
  const char *directory = getenv("FAULTY_DISK_PATH");
  return directory != NULL && strncmp(path, directory, strlen(directory)) == 0;
}

static int is_on_disk(int fd) {
  char link[64];
  char path[PATH_MAX] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  return length > 0 && takes_part(path);
}

static int refuses(int fd, int is_write) {
  enum fault fault = present_fault();
  if (fault == none || fault == die || !is_on_disk(fd)) return 0;
  if (fault == read_only && !is_write) return 0;
  errno = fault == read_only ? EROFS : EIO;
  return 1;
}

static void before_reply(int fd) {
  struct stat status;
  if (!has_synced || present_fault() != die || fstat(fd, &status) != 0) return;
  if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(10, 229)) return;
  unlink(getenv("FAULTY_DISK_FLAG"));
  kill(getpid(), SIGKILL);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  before_reply(fd);
  return refuses(fd, 1) ? -1 : REAL(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  before_reply(fd);
  return refuses(fd, 1) ? -1 : REAL(writev)(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  return refuses(fd, 1) ? -1 : REAL(pwrite)(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  return refuses(fd, 1) ? -1 : REAL(pwrite64)(fd, bytes, count, offset);
}

int ftruncate(int fd, off_t length) {
  return refuses(fd, 1) ? -1 : REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
  return refuses(fd, 1) ? -1 : REAL(ftruncate64)(fd, length);
}

int fsync(int fd) {
  has_synced = 1;
  return refuses(fd, 0) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd) {
  has_synced = 1;
  return refuses(fd, 0) ? -1 : REAL(fdatasync)(fd);
}

static int refuses_open(const char *path, int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY && (flags & O_CREAT) == 0) return 0;
  if (!takes_part(path) || present_fault() != read_only) return 0;
  errno = EROFS;
  return 1;
}

int access(const char *path, int mode) {
  if ((mode & W_OK) != 0 && takes_part(path) && present_fault() == read_only) {
    errno = EROFS;
    return -1;
  }
  return REAL(access)(path, mode);
}

static mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) == 0 ? 0 : va_arg(arguments, mode_t);
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return refuses_open(path, flags) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return refuses_open(path, flags) ? -1 : REAL(open64)(path, flags, mode);
}
