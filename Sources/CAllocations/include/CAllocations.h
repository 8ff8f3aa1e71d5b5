// Counts what a thread allocates. Whoever links this takes the place of malloc: tests and
// benchmarks only, never `polder`.
#pragma once
#include <stdint.h>

/// Calls of malloc, calloc, realloc and the aligned ones by the calling thread since it began, or -1
/// where the C library cannot be counted.
int64_t polder_allocations(void);
/// Bytes that they asked for.
int64_t polder_allocated_bytes(void);
/// Nanoseconds of the monotonic clock.
uint64_t polder_now(void);
/// Nanoseconds of CPU that the calling thread has used.
uint64_t polder_thread_cpu(void);
