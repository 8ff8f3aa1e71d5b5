// System calls that Swift cannot make by itself: variadic, or not in its Glibc module.
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

/// The kernel sends `signal` to this process when the thread that started it ends.
static inline int polder_die_with_parent(int signal) { return prctl(PR_SET_PDEATHSIG, signal); }

/// `open` with a mode, close-on-exec.
static inline int polder_open(const char *path, int flags, int mode) {
  return open(path, flags | O_CLOEXEC, mode);
}

/// A descriptor that becomes readable when one of `signals` arrives.
static inline int polder_signal_descriptor(const sigset_t *signals) {
  return signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

/// The next signal's number; 0 when there is none.
static inline int polder_take_signal(int descriptor) {
  struct signalfd_siginfo info;
  return read(descriptor, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

/// `accept`, close-on-exec. (accept4 hides behind _GNU_SOURCE; nothing else forks here between.)
static inline int polder_accept(int listener) {
  int descriptor = accept(listener, 0, 0);
  if (descriptor >= 0) fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  return descriptor;
}
