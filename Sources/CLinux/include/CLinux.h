// System calls that Swift cannot make by itself: variadic, or not in its Glibc module.
// No system headers here: their types would seem to be ours.
#pragma once

/// The kernel sends `signal` to this process when the thread that started it ends.
int polder_die_with_parent(int signal);

/// `open` with a mode, close-on-exec.
int polder_open(const char *path, int flags, int mode);

/// Blocks these signals in this thread, and in those that it starts; a descriptor that becomes readable
/// when one arrives.
int polder_receive_signals(const int *signals, int count);

/// The next signal's number; 0 when there is none.
int polder_take_signal(int descriptor);

/// `accept`, close-on-exec.
int polder_accept(int listener);

/// A descriptor that listens on this port of 127.0.0.1, or -1. (In C: whose module `sockaddr_in` is,
/// changes with what else is imported.)
int polder_listen_on_loopback(int port);

/// Asks the system's resolver for the SRV records of a name: the whole answer as it came (RFC 1035), cut to
/// `size`; its length, or -1.
int polder_query_srv(const char *name, unsigned char *answer, int size);

/// What the calling thread, and those that it starts, have to do takes so long at a time, mostly: a scheduler that
/// knows this (Linux 6.12 and later; 0.1 to 100 ms) lets who needs little go before those who go on and on, as soon
/// as it has something to do. Shares of the processor do not change. 0, or -1.
int polder_ask_for_slices(unsigned long nanoseconds);

/// Makes the calling thread nicer.
int polder_lower_priority(int by);

/// "$2b$10$" and a salt of 16 random bytes, of which `polder_bcrypt` makes a hash. 0, or -1.
int polder_bcrypt_setting(int cost, const unsigned char *random, char *setting, int size);

/// The hash of a password (to its first zero byte) with a setting or an older hash; its length, or -1.
int polder_bcrypt(const char *password, const char *setting, char *hash, int size);

/// Begins to look at who uses the CPUs, `hertz` times a second of CPU time; what is seen goes into `words`
/// until they are full. 0, or -1: it runs already, or cannot be begun. The words must stay where they are
/// until `polder_sampling_end`, and are zero before.
int polder_sampling_begin(int hertz, unsigned long *words, unsigned long count);

/// How many words have been taken, and (in `lost`) how many looks found no room. Samples one after the other:
/// a count of addresses (0: not whole, and nothing follows), and so many addresses, the innermost first.
unsigned long polder_sampling_end(unsigned long *lost);

/// What the allocator tells of itself, as text; to be freed. Null if it tells nothing.
char *polder_allocator_report(void);

/// CRC-32C by the processor's instruction, of one piece after another: takes and gives the register as it is.
typedef unsigned int (*polder_crc32c_step)(unsigned int crc, const void *bytes, long count);

/// Null: this processor has none (or nobody has written it down here yet).
polder_crc32c_step polder_crc32c(void);

/// Every descriptor but the standard ones closes when this process becomes another program.
void polder_close_others_on_exec(void);
