/* What the test of the C interface demands, and ends the program where it is otherwise. */
#ifndef EXPECT_H
#define EXPECT_H

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <trit.h>
#include <unistd.h>

/* Calls that went as expected, about: threads count without a lock. */
static unsigned long expected;
/* What the last call that failed said. */
static __thread char said[1024];

#define EXPECT(what)                                                                                                              \
    do {                                                                                                                          \
        if (!(what)) {                                                                                                            \
            fprintf(stderr, "%s:%d: expected %s; last error: %s\n", __FILE__, __LINE__, #what, said);                             \
            abort();                                                                                                              \
        }                                                                                                                         \
    } while (0)

/* The call, which takes `&error` last, gives that status, and an error only where it is none of success. */
#define FAILS(wanted, call)                                                                                                       \
    do {                                                                                                                          \
        trit_error *error = NULL;                                                                                                 \
        trit_status status = call;                                                                                                \
        snprintf(said, sizeof said, "%s", trit_error_message(error));                                                             \
        if (status != (wanted)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s gives %s: %s\n", __FILE__, __LINE__, #call, trit_status_name(status), said);               \
            abort();                                                                                                              \
        }                                                                                                                         \
        EXPECT(trit_error_status(error) == status && (error == NULL) == (status == TRIT_OK));                                     \
        EXPECT(status == TRIT_OK || said[0] != 0);                                                                                \
        trit_error_free(&error);                                                                                                  \
        EXPECT(error == NULL);                                                                                                    \
        expected++;                                                                                                               \
    } while (0)

#define OK(call) FAILS(TRIT_OK, call)

/* What the last call that failed said has these words. */
#define SAID(words) EXPECT(strstr(said, words) != NULL)

static unsigned char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    EXPECT(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *length = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(*length);
    EXPECT(bytes != NULL && fread(bytes, 1, *length, file) == *length && fclose(file) == 0);
    return bytes;
}

/* A file without a name that has so many other bytes, and then these. Its position is at its end. */
static int open_behind(const unsigned char *bytes, size_t length, size_t before) {
    char name[] = "/tmp/trit-capi-XXXXXX";
    int fd = mkstemp(name);
    EXPECT(fd >= 0 && unlink(name) == 0 && ftruncate(fd, (off_t)before) == 0);
    EXPECT(lseek(fd, 0, SEEK_END) == (off_t)before && write(fd, bytes, length) == (ssize_t)length);
    return fd;
}

#endif
