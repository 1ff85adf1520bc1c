/* Between a process and the system (LD_PRELOAD): writes down all that is done to the files under RECORD_ROOT, in order, into the
 * file RECORD_TO, for `disk.py` to replay; and makes fsync fail.
 *
 * A record is a header, then `size` bytes. Files are told apart by inode, as names change. Calls are made and recorded under one
 * lock: what happened before in the process stands before in the record.
 *
 * FAIL_SYNC_AT=n lets the n-th sync of an index's file or log fail with EIO, once, and FAIL_SYNC_WHILE=path every one while a file is
 * there. After a sync that failed, Linux takes the pages for clean: a later one succeeds without them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_FILES = 4096 };
struct header { char kind[8]; int64_t inode, offset, size; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char is_ours[MAX_FILES], is_database[MAX_FILES];
static int record_to = -1, num_syncs;

static int is_under_root(const char *path) {
    const char *root = getenv("RECORD_ROOT");
    return root && record_to >= 0 && strncmp(path, root, strlen(root)) == 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECORD_TO");
    if (path) record_to = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void put(const void *data, size_t size) {
    for (const char *next = data; size > 0;) {
        long done = syscall(SYS_write, record_to, next, size);
        if (done < 0) abort();
        next += done;
        size -= (size_t)done;
    }
}

static void record(const char *kind, int64_t inode, int64_t offset, const void *data, size_t size) {
    struct header header = {{0}, inode, offset, (int64_t)size};
    strncpy(header.kind, kind, sizeof header.kind);
    put(&header, sizeof header);
    put(data, size);
}

static int64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? -1 : (int64_t)found.st_ino;
}

static int follows(int fd) { return fd >= 0 && fd < MAX_FILES && is_ours[fd]; }

/* Opening: a file that was not there before is a new entry of its folder. */

static int opened(int at, const char *path, int flags, mode_t mode) {
    if (!is_under_root(path)) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < MAX_FILES) {
        is_ours[fd] = 1;
        is_database[fd] = strstr(path, ".sqlite") != NULL;
        record(is_new ? "create" : "open", inode_of(fd), 0, path, strlen(path));
        if (!is_new && (flags & O_TRUNC)) record("cut", inode_of(fd), 0, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return opened(AT_FDCWD, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

int close(int fd) {
    if (follows(fd)) is_ours[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

/* Writing. */

static ssize_t written(int fd, const void *data, size_t size, int64_t offset) {
    pthread_mutex_lock(&lock);
    int64_t at = offset;
    if (offset < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0) record("write", inode_of(fd), at, data, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    return follows(fd) ? written(fd, data, size, -1) : syscall(SYS_write, fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return follows(fd) ? written(fd, data, size, offset) : syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) {
    if (!follows(fd)) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int failed = (int)syscall(SYS_ftruncate, fd, size);
    if (!failed) record("cut", inode_of(fd), size, "", 0);
    pthread_mutex_unlock(&lock);
    return failed;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* Waiting for the disk: of a file its content, of a folder its entries. */

static int must_fail(int fd) {
    const char *at = getenv("FAIL_SYNC_AT"), *during = getenv("FAIL_SYNC_WHILE");
    if (!is_database[fd]) return 0;
    return (at && ++num_syncs == atoi(at)) || (during && access(during, F_OK) == 0);
}

static int synced(int fd, long call) {
    if (!follows(fd)) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    int fails = must_fail(fd);
    if (!fails) fails = (int)syscall(call, fd); else errno = EIO;
    record(fails ? "unsynced" : "synced", inode_of(fd), 0, "", 0);
    pthread_mutex_unlock(&lock);
    return fails ? -1 : 0;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* Names. */

static int named(const char *kind, const char *path, const char *other, long failed) {
    if (!failed && is_under_root(path)) {
        char both[2 * PATH_MAX];
        size_t size = strlen(path);
        memcpy(both, path, size + 1);
        if (other) { memcpy(both + size + 1, other, strlen(other)); size += 1 + strlen(other); }
        struct stat found;
        record(kind, stat(other ? other : path, &found) ? -1 : (int64_t)found.st_ino, 0, both, size);
    }
    return failed ? -1 : 0;
}

#define NAMES(signature, kind, path, other, call) \
    int signature { \
        pthread_mutex_lock(&lock); \
        int failed = named(kind, path, other, call); \
        pthread_mutex_unlock(&lock); \
        return failed; \
    }
NAMES(unlink(const char *path), "unlink", path, NULL, syscall(SYS_unlinkat, AT_FDCWD, path, 0))
NAMES(rename(const char *old, const char *new), "rename", old, new, syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0))
NAMES(mkdir(const char *path, mode_t mode), "mkdir", path, NULL, syscall(SYS_mkdirat, AT_FDCWD, path, mode))
