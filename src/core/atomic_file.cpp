#include "core/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <vector>

#include "core/error.h"

namespace uvit {
namespace {

[[noreturn]] void fail(const char* what, const std::filesystem::path& path, int code) {
  const char* hint = code == ENOSPC || code == EDQUOT ? "; free some space or choose another place" : "";
  throw Error(fmt::format("cannot {} {}: {}{}", what, path.string(), std::strerror(code), hint));
}

/// An open file, closed in every case; close() reports what the system finds out only then.
class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, const char* what) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (value_ < 0) fail(what, path, errno);
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  void close(const std::filesystem::path& path) {
    const int closed = ::close(value_);
    value_ = -1;
    if (closed != 0) fail("write", path, errno);
  }

 private:
  int value_;
};

std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  std::filesystem::path temporary = path;
  temporary += fmt::format(".tmp-{}-{}", getpid(), counter++);
  return temporary;
}

/// The process whose temporary_beside a path this name is, 0 where it is none.
pid_t writer_of(const std::string& name) {
  const std::size_t at = name.rfind(".tmp-");
  int process = 0, end = 0;
  unsigned count = 0;
  if (at == std::string::npos || std::sscanf(name.c_str() + at, ".tmp-%9d-%9u%n", &process, &count, &end) != 2) return 0;
  return process > 0 && at + static_cast<std::size_t>(end) == name.size() ? process : 0;
}

}  // namespace

void make_directories(const std::filesystem::path& folder) {
  if (folder.empty()) return;
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) throw Error(fmt::format("cannot make the folder {}: {}", folder.string(), code.message()));
  if (!std::filesystem::is_directory(folder, code)) throw Error(fmt::format("cannot make the folder {}: a file has that name", folder.string()));
}

void replace_file(const std::filesystem::path& path, const std::function<void(const std::filesystem::path& temporary)>& write) {
  std::error_code code;
  const std::filesystem::file_status status = std::filesystem::status(path, code);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw Error(fmt::format("cannot write {}: it is a folder or a device, name a file", path.string()));
  const std::filesystem::path temporary = temporary_beside(path);
  try {
    write(temporary);
    sync_path(temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail("write", path, errno);
  } catch (...) {
    std::filesystem::remove(temporary, code);
    throw;
  }
  sync_path(path.has_parent_path() ? path.parent_path() : ".");
}

void remove_temporaries(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> left;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(folder, code)) {
    const pid_t writer = writer_of(entry.path().filename().string());
    if (writer > 0 && entry.is_regular_file(code) && ::kill(writer, 0) != 0 && errno == ESRCH) left.push_back(entry.path());
  }
  for (const std::filesystem::path& file : left) std::filesystem::remove(file, code);
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  replace_file(path, [&](const std::filesystem::path& temporary) {
    Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC, "write");
    write_all(file.get(), bytes, path);
    file.close(path);
  });
}

void write_file(const std::filesystem::path& path, std::string_view text) { write_file(path, std::as_bytes(std::span(text))); }

void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("write", path, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void append_line(const std::filesystem::path& path, std::string_view line) {
  Descriptor file(path, O_WRONLY | O_CREAT | O_APPEND, "write");
  struct stat before {};
  if (::fstat(file.get(), &before) != 0) fail("write", path, errno);
  const std::string text = std::string(line) + '\n';
  try {
    write_all(file.get(), std::as_bytes(std::span(text)), path);
  } catch (const Error&) {
    // Half a line would make the whole file unreadable as JSON lines. Where it cannot be cut off, the first error is still the one to tell.
    [[maybe_unused]] const int cut = ::ftruncate(file.get(), before.st_size);
    throw;
  }
  file.close(path);
}

void sync_path(const std::filesystem::path& path) {
  Descriptor file(path, O_RDONLY, "open");
  // Some file systems cannot sync a folder and say so with EINVAL.
  if (::fsync(file.get()) != 0 && errno != EINVAL && errno != ENOTSUP) fail("sync", path, errno);
}

std::string read_file(const std::filesystem::path& path) {
  Descriptor file(path, O_RDONLY, "read");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail("read", path, errno);
  std::string text(static_cast<std::size_t>(status.st_size) + 1, '\0');  // one more, so that the end is seen without growing
  std::size_t size = 0;
  while (true) {
    if (size == text.size()) text.resize(text.size() * 2);
    const ssize_t count = ::read(file.get(), text.data() + size, text.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("read", path, errno);
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  text.resize(size);
  return text;
}

}  // namespace uvit
