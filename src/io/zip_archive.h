#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

struct zip;

namespace uvit {

/// A zip file that is read. Every failure is an Error; the caller puts the file's name before it.
class ZipReader {
 public:
  explicit ZipReader(const std::filesystem::path& path);
  ~ZipReader();
  ZipReader(const ZipReader&) = delete;
  ZipReader& operator=(const ZipReader&) = delete;

  const std::vector<std::string>& names() const { return names_; }
  bool contains(const std::string& name) const;
  /// The member, unpacked, its checksum verified. Memory is taken only for as much as the archive can hold.
  std::vector<std::byte> read(const std::string& name) const;
  /// Bytes of the archive itself.
  std::uint64_t file_size() const { return file_size_; }

 private:
  zip* archive_ = nullptr;
  std::uint64_t file_size_ = 0;
  std::vector<std::string> names_;
};

/// A member to write; the bytes must live until write_zip returns.
struct ZipMember {
  std::string name;
  std::span<const std::byte> bytes;
};

/// Writes a zip file, through a temporary name and a rename. Equal members give equal bytes: the time stamps are fixed.
void write_zip(const std::filesystem::path& path, std::span<const ZipMember> members, bool deflate);

}  // namespace uvit
