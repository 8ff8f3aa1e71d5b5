#define _GNU_SOURCE
#include "CLinux.h"
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <crypt.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <resolv.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

// jemalloc reads this, where it is linked: few threads allocate, and what the store's flushes free goes back
// to the system soon, also when the process has become idle (docs/performance.md).
const char *malloc_conf =
    "narenas:2,background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0";

#ifndef DEBUG
// Swift's runtime: the packages that we use (swift-nio above all) are built with checks of exclusive access,
// ours are not in release builds (Package.swift). Each is a call and a look at a list.
extern _Bool _swift_disableExclusivityChecking __attribute__((weak));

__attribute__((constructor)) static void check_no_exclusivity(void) {
  if (&_swift_disableExclusivityChecking) _swift_disableExclusivityChecking = 1;
}
#endif

int polder_die_with_parent(int signal) { return prctl(PR_SET_PDEATHSIG, signal); }

int polder_open(const char *path, int flags, int mode) {
  return open(path, flags | O_CLOEXEC, mode);
}

int polder_receive_signals(const int *signals, int count) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
  pthread_sigmask(SIG_BLOCK, &set, 0);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int polder_take_signal(int descriptor) {
  struct signalfd_siginfo info;
  return read(descriptor, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

int polder_query_srv(const char *name, unsigned char *answer, int size) {
  return res_query(name, ns_c_in, ns_t_srv, answer, size);
}

int polder_accept(int listener) { return accept4(listener, 0, 0, SOCK_CLOEXEC); }

int polder_listen_on_loopback(int port) {
  int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  int yes = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in address = {0};
  address.sin_family = AF_INET;
  address.sin_port = htons((unsigned short)port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0 &&
      listen(descriptor, 1) == 0)
    return descriptor;
  close(descriptor);
  return -1;
}

// As the kernel has it; not in all versions of the system's headers.
struct scheduling {
  unsigned size, policy;
  unsigned long long flags;
  int nice;
  unsigned priority;
  unsigned long long runtime, deadline, period;
};

int polder_ask_for_slices(unsigned long nanoseconds) {
  struct scheduling now;
  memset(&now, 0, sizeof now);
  if (syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) != 0 || now.policy != 0) return -1;
  now.size = sizeof now;
  now.flags = 0;
  now.runtime = nanoseconds;
  return (int)syscall(SYS_sched_setattr, 0, &now, 0);
}

int polder_lower_priority(int by) {
  return setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), by);
}

int polder_bcrypt_setting(int cost, const unsigned char *random, char *setting, int size) {
  return crypt_gensalt_rn("$2b$", (unsigned long)cost, (const char *)random, 16, setting, size) ? 0 : -1;
}

int polder_bcrypt(const char *password, const char *setting, char *hash, int size) {
  struct crypt_data *data = calloc(1, sizeof *data);
  if (!data) return -1;
  const char *made = crypt_rn(password, setting, data, sizeof *data);
  int length = made ? (int)strlen(made) : -1;
  if (length >= size) length = -1;
  if (length > 0) memcpy(hash, made, (size_t)length + 1);
  explicit_bzero(data, sizeof *data);
  free(data);
  return length;
}

// MARK: Checksums

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static unsigned int crc32c(
    unsigned int crc, const void *bytes, long count) {
  const unsigned char *at = bytes;
  unsigned long wide = crc;
  for (; count >= 8; count -= 8, at += 8) {
    unsigned long word;
    memcpy(&word, at, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  crc = (unsigned int)wide;
  for (; count > 0; count--, at++) crc = __builtin_ia32_crc32qi(crc, *at);
  return crc;
}

polder_crc32c_step polder_crc32c(void) {
  return __builtin_cpu_supports("sse4.2") ? crc32c : 0;
}
#else
polder_crc32c_step polder_crc32c(void) { return 0; }
#endif

// MARK: Sampling

static unsigned long *sample_words;
static unsigned long sample_room;
static atomic_ulong sample_used, sample_lost;
static atomic_int sample_on;

enum { sample_depth = 64 };

// Any address may be asked for: what is not mapped is an error, and no signal.
static int read_words(unsigned long from, unsigned long *to, unsigned long count) {
  struct iovec here = {to, count * sizeof *to}, there = {(void *)from, count * sizeof *to};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)(count * sizeof *to);
}

// Follows frame pointers, which Swift keeps. Where C code uses the register otherwise, the stack ends.
static void on_sample(int signal, siginfo_t *info, void *state) {
  (void)signal;
  (void)info;
  if (!atomic_load_explicit(&sample_on, memory_order_acquire)) return;
  int error = errno;
  ucontext_t *context = state;
  unsigned long found[sample_depth];
  unsigned long count = 0, frame;
#if defined(__x86_64__)
  found[count++] = (unsigned long)context->uc_mcontext.gregs[REG_RIP];
  frame = (unsigned long)context->uc_mcontext.gregs[REG_RBP];
#elif defined(__aarch64__)
  found[count++] = (unsigned long)context->uc_mcontext.pc;
  frame = (unsigned long)context->uc_mcontext.regs[29];
#else
  frame = 0;
#endif
  unsigned long next[2];
  while (count < sample_depth && frame > 4096 && !(frame & 7) && read_words(frame, next, 2) &&
         next[1] > 4096) {
    // Behind the call: the call itself is what is meant.
    found[count++] = next[1] - 1;
    if (next[0] <= frame || next[0] - frame > (8ul << 20)) break;
    frame = next[0];
  }
  unsigned long at = atomic_fetch_add(&sample_used, count + 1);
  if (count && at + count + 1 <= sample_room) {
    memcpy(sample_words + at + 1, found, count * sizeof *found);
    __atomic_store_n(sample_words + at, count, __ATOMIC_RELEASE);
  } else {
    atomic_fetch_add(&sample_lost, 1);
  }
  errno = error;
}

int polder_sampling_begin(int hertz, unsigned long *words, unsigned long count) {
  if (hertz < 1 || hertz > 1000 || atomic_load(&sample_on)) return -1;
  sample_words = words;
  sample_room = count;
  atomic_store(&sample_used, 0);
  atomic_store(&sample_lost, 0);
  struct sigaction action = {0};
  action.sa_sigaction = on_sample;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  if (sigaction(SIGPROF, &action, 0)) return -1;
  atomic_store_explicit(&sample_on, 1, memory_order_release);
  struct itimerval timer = {{0, 1000000 / hertz}, {0, 1000000 / hertz}};
  if (setitimer(ITIMER_PROF, &timer, 0) == 0) return 0;
  atomic_store(&sample_on, 0);
  return -1;
}

unsigned long polder_sampling_end(unsigned long *lost) {
  struct itimerval off = {{0, 0}, {0, 0}};
  setitimer(ITIMER_PROF, &off, 0);
  // Handlers that have begun are short: by then they are over.
  usleep(20000);
  atomic_store(&sample_on, 0);
  signal(SIGPROF, SIG_IGN);
  *lost = atomic_load(&sample_lost);
  unsigned long used = atomic_load(&sample_used);
  return used < sample_room ? used : sample_room;
}

static void add_text(void *to, const char *text) { fputs(text, to); }

char *polder_allocator_report(void) {
  char *text = 0;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (!out) return 0;
  void (*print)(void (*)(void *, const char *), void *, const char *) =
      dlsym(RTLD_DEFAULT, "malloc_stats_print");
  if (print)
    print(add_text, out, "gd");
  else
    malloc_info(0, out);
  fclose(out);
  return text;
}

void polder_close_others_on_exec(void) {
  // A timer goes on in the new program, which has no handler for it.
  struct itimerval off = {{0, 0}, {0, 0}};
  setitimer(ITIMER_PROF, &off, 0);
  // close_range(2), as glibc has it only from 2.34 on; 4: CLOSE_RANGE_CLOEXEC.
  if (syscall(SYS_close_range, 3u, ~0u, 4u) == 0) return;
  for (int descriptor = 3; descriptor < 4096; descriptor++) fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}
