#define _GNU_SOURCE
#include "CLinux.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

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

int polder_accept(int listener) { return accept4(listener, 0, 0, SOCK_CLOEXEC); }
