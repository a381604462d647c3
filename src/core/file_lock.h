#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace uvit {

/// Holds the advisory lock (flock) of a file while it lives. The system drops it with the process, however that ends: the file that a killed one left
/// is no obstacle. Where the file system has no locks it protects nothing.
class FileLock {
 public:
  /// Makes the file where there is none and locks it. @return empty when another process, or this one, holds it. Throws Error when it cannot be made.
  static std::optional<FileLock> try_lock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;

  /// Puts a text into the file, for those who find it locked.
  void write(const std::string& holder);

 private:
  FileLock(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  std::filesystem::path path_;
  int descriptor_;
};

/// Whether someone holds the lock of the file; nothing is made or changed.
bool is_locked(const std::filesystem::path& path);

}  // namespace uvit
