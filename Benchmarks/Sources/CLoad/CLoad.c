#define _GNU_SOURCE
#include "CLoad.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t load_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t load_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return ((uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
            (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec)) * 1000u;
}

int load_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }

int load_watch(int epoll, int descriptor, uint64_t token, int writes, int adds) {
    struct epoll_event e = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.u64 = token};
    return epoll_ctl(epoll, adds ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, descriptor, &e);
}

int load_wait(int epoll, uint64_t *tokens, uint32_t *ready, int count, uint64_t nanos) {
    struct epoll_event events[256];
    struct timespec t = {.tv_sec = (time_t)(nanos / 1000000000u), .tv_nsec = (long)(nanos % 1000000000u)};
    int n = epoll_pwait2(epoll, events, count < 256 ? count : 256, &t, NULL);
    if (n < 0) return errno == EINTR ? 0 : -1;
    for (int i = 0; i < n; i++) {
        uint32_t e = events[i].events;
        tokens[i] = events[i].data.u64;
        ready[i] = (e & EPOLLIN ? 1u : 0) | (e & EPOLLOUT ? 2u : 0) | (e & (EPOLLERR | EPOLLHUP) ? 4u : 0);
    }
    return n;
}

int load_connect(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0 || !found) return -1;
    int s = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s >= 0) {
        int one = 1;
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(s, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS) {
            close(s);
            s = -1;
        }
    }
    freeaddrinfo(found);
    return s;
}

int load_connected(int descriptor) {
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

static long outcome(ssize_t n) {
    if (n >= 0) return n;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
}

long load_receive(int descriptor, void *to, unsigned long count) {
    return outcome(recv(descriptor, to, count, 0));
}

long load_send(int descriptor, const void *from, unsigned long count) {
    return outcome(send(descriptor, from, count, MSG_NOSIGNAL));
}

void load_close(int descriptor) { close(descriptor); }

void load_wake_promptly(void) { prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0); }
