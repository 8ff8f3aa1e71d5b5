#define _GNU_SOURCE
#include "CLinux.h"
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <crypt.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <resolv.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// jemalloc reads this, where it is linked: few threads allocate, and what the store's flushes free goes back
// to the system soon, also when the process has become idle (docs/performance.md).
const char *malloc_conf =
    "narenas:2,background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0";

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
