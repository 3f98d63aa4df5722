/* A file system that refuses something: for LD_PRELOAD.

   Below the directory $REFUSE_BELOW these fail, where a number is given: locks of files (flock) with $REFUSE_FLOCK, locks
   of their parts (fcntl) with $REFUSE_PARTS, and opening for writing, making, renaming and deleting with $REFUSE_WRITES. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int number(const char *variable) {
    const char *text = getenv(variable);
    return text ? atoi(text) : 0;
}

static int is_below(const char *path) {
    const char *below = getenv("REFUSE_BELOW");
    size_t length = below ? strlen(below) : 0;
    return length && path && !strncmp(path, below, length) && (path[length] == '/' || !path[length]);
}

static int refuses_lock(int file, const char *variable) {
    int refusal = number(variable);
    char name[64], path[PATH_MAX];
    if (!refusal) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path) ? refusal : 0;
}

static int refuses_write(const char *path) {
    int refusal = number("REFUSE_WRITES");
    return refusal && is_below(path) ? refusal : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE(refusal) do { int r_ = (refusal); if (r_) { errno = r_; return -1; } } while (0)

int flock(int file, int operation) {
    REFUSE(refuses_lock(file, "REFUSE_FLOCK"));
    return REAL(flock)(file, operation);
}

#define FCNTL(name)                                                                                   \
    int name(int file, int command, ...) {                                                            \
        va_list list;                                                                                 \
        va_start(list, command);                                                                      \
        void *argument = va_arg(list, void *);                                                        \
        va_end(list);                                                                                 \
        if (command == F_SETLK || command == F_SETLKW) REFUSE(refuses_lock(file, "REFUSE_PARTS"));    \
        return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, #name))(file, command, argument);            \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

#define OPEN(name)                                                                                    \
    int name(const char *path, int flags, ...) {                                                      \
        va_list list;                                                                                 \
        va_start(list, flags);                                                                        \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0;                     \
        va_end(list);                                                                                 \
        if ((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT) REFUSE(refuses_write(path));          \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode);         \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    REFUSE(refuses_write(path));
    return REAL(mkdir)(path, mode);
}

int rename(const char *old, const char *new) {
    REFUSE(refuses_write(new));
    return REAL(rename)(old, new);
}

int unlink(const char *path) {
    REFUSE(refuses_write(path));
    return REAL(unlink)(path);
}
