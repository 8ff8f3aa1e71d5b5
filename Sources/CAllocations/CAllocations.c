#define _GNU_SOURCE
#include "CAllocations.h"

#include <errno.h>
#include <stddef.h>
#include <time.h>

static uint64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
uint64_t polder_now(void) { return read_clock(CLOCK_MONOTONIC); }
uint64_t polder_thread_cpu(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define POLDER_SANITIZED
#endif
#endif

#if defined(__GLIBC__) && !defined(POLDER_SANITIZED)

// glibc's own names for what is defined here again: no dlsym, which allocates itself.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static __thread int64_t count __attribute__((tls_model("initial-exec")));
static __thread int64_t bytes __attribute__((tls_model("initial-exec")));

static void note(size_t size) {
    count++;
    bytes += (int64_t)size;
}

void *malloc(size_t size) {
    note(size);
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
    note(n * size);
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t size) {
    note(size);
    return __libc_realloc(p, size);
}
void *memalign(size_t alignment, size_t size) {
    note(size);
    return __libc_memalign(alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    note(size);
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
    note(size);
    void *p = __libc_memalign(alignment, size);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

int64_t polder_allocations(void) { return count; }
int64_t polder_allocated_bytes(void) { return bytes; }

#else

int64_t polder_allocations(void) { return -1; }
int64_t polder_allocated_bytes(void) { return -1; }

#endif
