#include "distributed/spawn.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "distributed/launch.h"

namespace uvit {
namespace {

using Clock = std::chrono::steady_clock;

/// After the first process has lost another one: as long as the one that is the cause may take to say why it ends.
constexpr auto kGrace = std::chrono::seconds(3);

struct Worker {
  pid_t pid = -1;
  int errors = -1;  // read end of the pipe for its last words
  bool running = true, ended_by_us = false;
  int status = 0;  // of waitpid

  bool failed() const { return !running && status != 0 && !ended_by_us; }
  bool was_killed() const { return failed() && WIFSIGNALED(status); }
};

/// What report_to_launcher wrote: whether the failure was only that of another process, and the message; none where it said nothing.
struct LastWords {
  bool secondary;
  std::string message;
};

std::optional<LastWords> last_words(const Worker& worker) {
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(worker.errors, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  if (text.size() < 2) return std::nullopt;
  return LastWords{text[0] == '1', text.substr(1)};
}

/// A socket bound to a free port of the loopback interface, which rank 0's store takes over: nobody can take the port in between.
std::pair<int, int> bind_loopback() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw Error(fmt::format("--processes: no port of 127.0.0.1 can be had: {}", std::strerror(errno)));
  return {fd, ntohs(address.sin_port)};
}

std::vector<std::string> own_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

Worker start(int rank, int count, int store, int port) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error(fmt::format("--processes: no pipe: {}", std::strerror(errno)));
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  Environment variables = process_environment();
  for (const auto& [name, value] : Environment{{"RANK", std::to_string(rank)},
                                               {"LOCAL_RANK", std::to_string(rank)},
                                               {"WORLD_SIZE", std::to_string(count)},
                                               {"LOCAL_WORLD_SIZE", std::to_string(count)},
                                               {"MASTER_ADDR", "127.0.0.1"},
                                               {"MASTER_PORT", std::to_string(port)},
                                               {"UVIT_LAUNCHER", "1"},
                                               {"UVIT_STORE_FD", std::to_string(store)},
                                               {"UVIT_ERROR_FD", std::to_string(ends[1])}})
    variables[name] = value;
  std::vector<std::string> environment, arguments = own_command_line();
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid < 0) throw Error(fmt::format("--processes: process {} of {} cannot be started: {}", rank + 1, count, std::strerror(errno)));
  if (pid == 0) {  // only calls that are safe between fork and exec
    ::setpgid(0, 0);  // a terminal's Ctrl-C reaches it through the launcher alone, once
    ::signal(SIGTTOU, SIG_IGN);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    ::fcntl(ends[1], F_SETFD, 0);
    if (rank != 0) ::close(store);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve("/proc/self/exe", argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  Worker worker;
  worker.pid = pid;
  worker.errors = ends[0];
  return worker;
}

void end_all(std::vector<Worker>& workers) {
  for (Worker& worker : workers) {
    if (!worker.running) continue;
    worker.ended_by_us = true;
    ::kill(worker.pid, SIGKILL);
  }
}

void collect(std::vector<Worker>& workers) {
  for (Worker& worker : workers)
    if (worker.running && ::waitpid(worker.pid, &worker.status, WNOHANG) == worker.pid) worker.running = false;
}

template <class Predicate>
bool any_of(const std::vector<Worker>& workers, Predicate&& predicate) {
  for (const Worker& worker : workers)
    if (predicate(worker)) return true;
  return false;
}

/// Waits until none runs. One that died or failed by itself ends the others at once; one that only lost another leaves that one time to speak.
void supervise(std::vector<Worker>& workers, std::vector<std::optional<LastWords>>& words, int& forwarded) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&signals, one);
  std::optional<Clock::time_point> deadline;
  while (any_of(workers, [](const Worker& worker) { return worker.running; })) {
    const timespec tick{0, 200'000'000};
    const int got = ::sigtimedwait(&signals, nullptr, &tick);
    if (got == SIGINT || got == SIGTERM || got == SIGHUP) {
      forwarded = got == SIGHUP ? SIGTERM : got;
      for (const Worker& worker : workers)
        if (worker.running) ::kill(worker.pid, forwarded);
    }
    collect(workers);
    for (std::size_t r = 0; r < workers.size(); ++r) {
      if (!workers[r].failed()) continue;
      if (!words[r]) words[r] = last_words(workers[r]);
      const bool secondary = words[r] && words[r]->secondary;
      if (!deadline || !secondary) deadline = secondary ? Clock::now() + kGrace : Clock::now();
    }
    if (deadline && Clock::now() >= *deadline) end_all(workers);
  }
}

/// One line on what went wrong, and the exit code.
int explain(const std::vector<Worker>& workers, const std::vector<std::optional<LastWords>>& words, int forwarded) {
  const auto say = [](const std::string& line) { fmt::print(stderr, "uvit: error: {}\n", line); };
  const auto prefix = [](std::size_t r) { return r == 0 ? std::string() : fmt::format("rank {}: ", r); };
  for (std::size_t r = 0; r < workers.size(); ++r) {
    if (!workers[r].was_killed()) continue;
    const int number = WTERMSIG(workers[r].status);
    if (number == forwarded) continue;
    say(fmt::format("rank {} of {} was killed by signal {} ({}): the other processes were ended; a training goes on from its last checkpoint with --resume", r,
                    workers.size(), number, ::strsignal(number)));
    return 128 + number;
  }
  for (const bool secondary : {false, true})
    for (std::size_t r = 0; r < workers.size(); ++r) {
      if (!workers[r].failed() || !words[r] || words[r]->secondary != secondary) continue;
      say(prefix(r) + words[r]->message);
      return WIFEXITED(workers[r].status) ? WEXITSTATUS(workers[r].status) : 1;
    }
  for (std::size_t r = 0; r < workers.size(); ++r) {
    if (!workers[r].failed()) continue;
    if (workers[r].was_killed()) {
      say(fmt::format("ended by signal {} ({}) before there was anything to save", forwarded, ::strsignal(forwarded)));
      return 128 + forwarded;
    }
    say(fmt::format("rank {} of {} ended with code {} and did not say why: the other processes were ended", r, workers.size(), WEXITSTATUS(workers[r].status)));
    return WEXITSTATUS(workers[r].status);
  }
  return 0;
}

}  // namespace

int run_processes(int count) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&signals, one);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const auto [store, port] = bind_loopback();
  std::vector<Worker> workers;
  try {
    for (int rank = 0; rank < count; ++rank) workers.push_back(start(rank, count, store, port));
  } catch (const Error&) {
    end_all(workers);
    throw;
  }
  ::close(store);
  std::vector<std::optional<LastWords>> words(workers.size());
  int forwarded = 0;
  supervise(workers, words, forwarded);
  return explain(workers, words, forwarded);
}

}  // namespace uvit
