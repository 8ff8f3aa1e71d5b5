// What the machine itself needs: the floor under every figure of the servers.
#define _GNU_SOURCE
#include "CLoad.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int load_sync_times(const char *path, int bytes, uint64_t *out, int rounds) {
    enum { size = 1 << 20 };
    int f = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (f < 0) return errno;
    char *block = calloc(1, size);
    if (!block) return ENOMEM;
    int error = pwrite(f, block, size, 0) == size && fsync(f) == 0 ? 0 : errno;
    for (int i = 0; i < rounds && !error; i++) {
        memset(block, i, (size_t)bytes);
        uint64_t start = load_now();
        if (pwrite(f, block, (size_t)bytes, (off_t)i * bytes % (size - bytes)) != bytes || fdatasync(f) != 0)
            error = errno;
        out[i] = load_now() - start;
    }
    free(block);
    close(f);
    unlink(path);
    return error;
}

struct end {
    int descriptor;
    cpu_set_t processors;
};

static void *echo(void *given) {
    struct end *end = given;
    int s = end->descriptor;
    pthread_setaffinity_np(pthread_self(), sizeof end->processors, &end->processors);
    char byte;
    while (recv(s, &byte, 1, 0) == 1 && send(s, &byte, 1, MSG_NOSIGNAL) == 1) {}
    close(s);
    return NULL;
}

// CPU of this thread: others on the machine do not count.
static uint64_t thread_cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// The first or the second processor that this thread may use; with one only, that one.
static cpu_set_t one_of(const cpu_set_t *all, int which) {
    cpu_set_t found;
    CPU_ZERO(&found);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, all)) continue;
        CPU_ZERO(&found);
        CPU_SET(i, &found);
        if (which-- == 0) break;
    }
    return found;
}

int load_round_trip_times(int apart, uint64_t *out, int rounds, uint64_t *cpu) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (listener < 0 || bind(listener, (struct sockaddr *)&a, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&a, &size) != 0)
        return errno;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&a, size) != 0) return errno;
    int t = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    if (t < 0) return errno;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(t, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    cpu_set_t all, here;
    CPU_ZERO(&all);
    sched_getaffinity(0, sizeof all, &all);
    here = one_of(&all, 0);
    struct end far = {t, one_of(&all, apart ? 1 : 0)};
    pthread_t thread;
    if (pthread_create(&thread, NULL, echo, &far) != 0) return EAGAIN;
    sched_setaffinity(0, sizeof here, &here);
    int error = 0;
    char byte = 1;
    uint64_t before = thread_cpu();
    for (int i = 0; i < rounds && !error; i++) {
        uint64_t start = load_now();
        if (send(s, &byte, 1, MSG_NOSIGNAL) != 1 || recv(s, &byte, 1, 0) != 1) error = EIO;
        out[i] = load_now() - start;
    }
    *cpu = thread_cpu() - before;
    close(s);
    pthread_join(thread, NULL);
    sched_setaffinity(0, sizeof all, &all);
    return error;
}

uint64_t load_copy_time(long bytes, int rounds) {
    enum { region = 64 << 20 };
    char *from = malloc(region), *to = malloc(region);
    if (!from || !to || bytes > region) return 0;
    memset(from, 1, region);
    memset(to, 2, region);
    long at = 0;
    uint64_t start = thread_cpu();
    for (int i = 0; i < rounds; i++) {
        memcpy(to + at, from + at, (size_t)bytes);
        // The copy is not to be optimized away.
        __asm__ volatile("" : : "r"(to) : "memory");
        at = at + 2 * bytes <= region ? at + bytes : 0;
    }
    uint64_t took = thread_cpu() - start;
    free(from);
    free(to);
    return took;
}
