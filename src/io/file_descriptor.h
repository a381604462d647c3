#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace uvit {

/// An open regular file, closed at the end of the scope. Every failure is an Error that names the file.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::uint64_t size() const { return size_; }
  /// Fills `out` with the bytes at `offset`. Throws Error where the file ends before.
  void read(std::span<std::byte> out, std::uint64_t offset) const;

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

/// A file made anew and written from its start to its end. `shown` is the name that errors give it.
class OutputFile {
 public:
  OutputFile(const std::filesystem::path& path, std::filesystem::path shown);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// Must be called at the end: some file systems find out only now that the disk is full.
  void close();

 private:
  std::filesystem::path shown_;
  int descriptor_;
};

}  // namespace uvit
