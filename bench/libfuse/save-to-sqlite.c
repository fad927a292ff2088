/*
 * The peer that the agent is measured against: a libfuse3 file system in C that does the least that "a save is a durable
 * row" asks for. One flat directory, files in memory, a buffer for each handle, and one prepared INSERT for each FLUSH
 * of a changed handle. No CSV parsing, no permissions, no bounds.
 *
 * It is written to be fast: the low-level API, the multi-threaded loop, direct I/O (a WRITE without the page cache),
 * O_TRUNC in the OPEN, attributes that the kernel may keep, and no lock around SQLite but the one around the INSERT.
 *
 *   save-to-sqlite MOUNT DATABASE FULL|NORMAL|OFF
 *
 * Prints "mounted" when requests are served. Ends at SIGTERM or when unmounted.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { files_max = 4096, name_bytes_max = 256, file_bytes_max = 65536, threads_max = 32 };
static const double attribute_seconds = 3600;

/* One file; its node is its index + 2, as 1 is the root. */
struct file {
  char name[name_bytes_max];
  mode_t mode;
  char *content;
  size_t size_bytes;
};

/* One open file description. Requests of one handle may come on two threads, hence the lock. */
struct handle {
  pthread_mutex_t lock;
  struct file *file;
  char *content;
  size_t size_bytes;
  int is_dirty;
};

static struct file files[files_max];
static size_t file_count;
static pthread_rwlock_t files_lock = PTHREAD_RWLOCK_INITIALIZER;

static sqlite3 *database;
static sqlite3_stmt *insert;
static pthread_mutex_t database_lock = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what) {
  fprintf(stderr, "save-to-sqlite: %s: %s\n", what, database ? sqlite3_errmsg(database) : strerror(errno));
  exit(1);
}

static void open_database(const char *path, const char *synchronous) {
  char pragma[64];
  snprintf(pragma, sizeof pragma, "PRAGMA synchronous=%s", synchronous);
  if (sqlite3_open(path, &database) != SQLITE_OK) fail("open");
  const char *statements[] = {
      "PRAGMA journal_mode=WAL", pragma,
      "CREATE TABLE save(row_id INTEGER PRIMARY KEY, saved_at_us INTEGER, name TEXT, content BLOB)"};
  for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
    if (sqlite3_exec(database, statements[i], NULL, NULL, NULL) != SQLITE_OK) fail(statements[i]);
  }
  const char *sql = "INSERT INTO save(saved_at_us, name, content) VALUES(?, ?, ?)";
  if (sqlite3_prepare_v2(database, sql, -1, &insert, NULL) != SQLITE_OK) fail("prepare");
}

/* One transaction: with synchronous=FULL the row is on the disk when this returns 0. */
static int insert_row(const struct handle *handle) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  pthread_mutex_lock(&database_lock);
  sqlite3_bind_int64(insert, 1, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
  sqlite3_bind_text(insert, 2, handle->file->name, -1, SQLITE_STATIC);
  sqlite3_bind_blob(insert, 3, handle->content, (int)handle->size_bytes, SQLITE_STATIC);
  int step = sqlite3_step(insert);
  sqlite3_reset(insert);
  pthread_mutex_unlock(&database_lock);
  return step == SQLITE_DONE ? 0 : EIO;
}

static struct file *file_of(fuse_ino_t node) {
  return node >= 2 && node - 2 < file_count ? &files[node - 2] : NULL;
}

static struct handle *handle_of(struct fuse_file_info *info) {
  return (struct handle *)(uintptr_t)info->fh;
}

static void fill_attributes(fuse_ino_t node, struct stat *attributes) {
  memset(attributes, 0, sizeof *attributes);
  attributes->st_ino = node;
  attributes->st_uid = getuid();
  attributes->st_gid = getgid();
  struct file *file = file_of(node);
  attributes->st_mode = file ? file->mode : S_IFDIR | 0755;
  attributes->st_nlink = file ? 1 : 2;
  attributes->st_size = file ? (off_t)file->size_bytes : 0;
}

static void reply_attributes(fuse_req_t request, fuse_ino_t node) {
  struct stat attributes;
  fill_attributes(node, &attributes);
  fuse_reply_attr(request, &attributes, attribute_seconds);
}

static fuse_ino_t find(const char *name) {
  for (size_t i = 0; i < file_count; i++) {
    if (strcmp(files[i].name, name) == 0) return i + 2;
  }
  return 0;
}

static void on_init(void *userdata, struct fuse_conn_info *connection) {
  (void)userdata;
  connection->want |= connection->capable & FUSE_CAP_ATOMIC_O_TRUNC;
  connection->want &= ~FUSE_CAP_WRITEBACK_CACHE;
  puts("mounted");
  fflush(stdout);
}

static void fill_entry(fuse_ino_t node, struct fuse_entry_param *entry) {
  memset(entry, 0, sizeof *entry);
  entry->ino = node;
  entry->attr_timeout = attribute_seconds;
  entry->entry_timeout = attribute_seconds;
  fill_attributes(node, &entry->attr);
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
  (void)parent;
  struct fuse_entry_param entry;
  pthread_rwlock_rdlock(&files_lock);
  fuse_ino_t node = find(name);
  if (node) fill_entry(node, &entry);
  pthread_rwlock_unlock(&files_lock);
  if (node) fuse_reply_entry(request, &entry);
  else fuse_reply_err(request, ENOENT);
}

static void on_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info) {
  (void)info;
  reply_attributes(request, node);
}

static void on_setattr(fuse_req_t request, fuse_ino_t node, struct stat *attributes, int to_set,
                       struct fuse_file_info *info) {
  (void)attributes;
  (void)to_set;
  (void)info;
  reply_attributes(request, node);
}

/* Returns 0 when there is no memory. */
static int open_handle(fuse_ino_t node, struct fuse_file_info *info) {
  struct handle *handle = calloc(1, sizeof *handle);
  if (!handle) return 0;
  pthread_mutex_init(&handle->lock, NULL);
  handle->file = file_of(node);
  info->fh = (uintptr_t)handle;
  info->direct_io = 1;
  return 1;
}

static void on_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *info) {
  (void)parent;
  struct fuse_entry_param entry;
  pthread_rwlock_wrlock(&files_lock);
  fuse_ino_t node = find(name);
  if (!node && file_count < files_max && strlen(name) < name_bytes_max) {
    struct file *file = &files[file_count];
    strcpy(file->name, name);
    file->mode = S_IFREG | (mode & 07777);
    node = ++file_count + 1;
  }
  if (node) fill_entry(node, &entry);
  pthread_rwlock_unlock(&files_lock);
  if (!node || !open_handle(node, info)) fuse_reply_err(request, ENOSPC);
  else fuse_reply_create(request, &entry, info);
}

static void on_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info) {
  if (!file_of(node)) fuse_reply_err(request, EISDIR);
  else if (!open_handle(node, info)) fuse_reply_err(request, ENOMEM);
  else fuse_reply_open(request, info);
}

static void on_read(fuse_req_t request, fuse_ino_t node, size_t size_bytes, off_t offset,
                    struct fuse_file_info *info) {
  (void)info;
  struct file *file = file_of(node);
  pthread_rwlock_rdlock(&files_lock);
  size_t end = file->size_bytes;
  size_t from = (size_t)offset < end ? (size_t)offset : end;
  size_t byte_count = end - from < size_bytes ? end - from : size_bytes;
  fuse_reply_buf(request, file->content ? file->content + from : NULL, byte_count);
  pthread_rwlock_unlock(&files_lock);
}

static void on_write(fuse_req_t request, fuse_ino_t node, const char *data, size_t size_bytes, off_t offset,
                     struct fuse_file_info *info) {
  (void)node;
  struct handle *handle = handle_of(info);
  size_t end = (size_t)offset + size_bytes;
  if (end > file_bytes_max) {
    fuse_reply_err(request, EFBIG);
    return;
  }
  pthread_mutex_lock(&handle->lock);
  if (end > handle->size_bytes) {
    handle->content = realloc(handle->content, end);
    memset(handle->content + handle->size_bytes, 0, end - handle->size_bytes);
    handle->size_bytes = end;
  }
  memcpy(handle->content + offset, data, size_bytes);
  handle->is_dirty = 1;
  pthread_mutex_unlock(&handle->lock);
  fuse_reply_write(request, size_bytes);
}

/* The content becomes the file's, as a reader would expect after the close. */
static void publish_content(struct handle *handle) {
  char *copy = malloc(handle->size_bytes);
  memcpy(copy, handle->content, handle->size_bytes);
  pthread_rwlock_wrlock(&files_lock);
  free(handle->file->content);
  handle->file->content = copy;
  handle->file->size_bytes = handle->size_bytes;
  pthread_rwlock_unlock(&files_lock);
}

static void on_flush(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info) {
  (void)node;
  struct handle *handle = handle_of(info);
  int error = 0;
  pthread_mutex_lock(&handle->lock);
  if (handle->is_dirty) {
    error = insert_row(handle);
    handle->is_dirty = 0;
    if (!error) publish_content(handle);
  }
  pthread_mutex_unlock(&handle->lock);
  fuse_reply_err(request, error);
}

static void on_release(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info) {
  (void)node;
  struct handle *handle = handle_of(info);
  free(handle->content);
  pthread_mutex_destroy(&handle->lock);
  free(handle);
  fuse_reply_err(request, 0);
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = on_lookup,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .create = on_create,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .flush = on_flush,
    .release = on_release,
};

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: save-to-sqlite MOUNT DATABASE FULL|NORMAL|OFF\n");
    return 2;
  }
  open_database(argv[2], argv[3]);
  char *fuse_arguments[] = {argv[0], NULL};
  struct fuse_args arguments = FUSE_ARGS_INIT(1, fuse_arguments);
  struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
  if (!session || fuse_set_signal_handlers(session) != 0 || fuse_session_mount(session, argv[1]) != 0) return 1;
  struct fuse_loop_config *loop = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(loop, threads_max);
  fuse_loop_cfg_set_idle_threads(loop, threads_max);
  int result = fuse_session_loop_mt(session, loop);
  fuse_loop_cfg_destroy(loop);
  fuse_session_unmount(session);
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  sqlite3_finalize(insert);
  sqlite3_close(database);
  return result < 0 ? 1 : 0;
}
