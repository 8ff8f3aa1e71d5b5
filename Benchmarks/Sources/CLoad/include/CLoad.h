// System calls that Swift's Glibc module does not have, or has in an inconvenient shape.
#pragma once
#include <stdint.h>

/// Nanoseconds of the monotonic clock.
uint64_t load_now(void);
/// User and system time of this process, in nanoseconds.
uint64_t load_cpu(void);

int load_epoll(void);
/// `writes`: also when it can be written. `adds`: it is not watched yet.
int load_watch(int epoll, int descriptor, uint64_t token, int writes, int adds);
/// Waits for at most `nanos`. Fills tokens and what they are ready for (1 read, 2 write, 4 broken).
int load_wait(int epoll, uint64_t *tokens, uint32_t *ready, int count, uint64_t nanos);

/// Starts connecting to a numeric address; a descriptor that does not block, or -1.
int load_connect(const char *host, const char *port);
/// 0 once connected, else the error.
int load_connected(int descriptor);
/// Bytes; 0 at the end, -1 not now, -2 broken.
long load_receive(int descriptor, void *to, unsigned long count);
long load_send(int descriptor, const void *from, unsigned long count);
void load_close(int descriptor);
/// Nanoseconds of `rounds` times `pwrite` of `bytes` and `fdatasync`, each into `out`, in a file of
/// 1 MiB that was written before. 0, or an error.
int load_sync_times(const char *path, int bytes, uint64_t *out, int rounds);
/// The same of one byte to another thread and back, over a TCP connection of the loopback interface; both
/// on one processor, or (`apart`) each on one of its own. `cpu`: nanoseconds of the calling thread for all.
int load_round_trip_times(int apart, uint64_t *out, int rounds, uint64_t *cpu);
/// Nanoseconds of `rounds` copies of `bytes`, through a region of 64 MiB.
uint64_t load_copy_time(long bytes, int rounds);
/// Wakes of the calling thread are not gathered with others': 1 us instead of 50.
void load_wake_promptly(void);
