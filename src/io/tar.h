#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/file_descriptor.h"

namespace uvit {

/// A tar archive is made of blocks of this size: a header for each member, its bytes filled up to whole blocks, two blocks of zeros at the end (POSIX.1-1988).
constexpr std::uint64_t kTarBlock = 512;

/// A plain file in a tar archive.
struct TarMember {
  std::string name;
  std::uint64_t offset = 0, size = 0;  ///< of its bytes; its header is the block before
};

/// The plain files of a tar archive, in the order of the archive; only headers are read. Reads ustar, GNU's long names and pax's names and sizes, passes
/// over folders and links. Throws Error naming file and byte where a header is damaged or the archive is cut.
std::vector<TarMember> list_tar(const std::filesystem::path& path);

/// What keeps this block from being the header of a plain file of `size` bytes: "" when it is one.
std::string tar_header_damage(std::span<const std::byte> block, std::uint64_t size);

/// The name in a header block.
std::string tar_member_name(std::span<const std::byte> block);

/// Writes a ustar archive. Equal members give equal bytes: time, user and group are 0.
class TarWriter {
 public:
  /// @param shown  name of the file in messages
  TarWriter(const std::filesystem::path& path, std::filesystem::path shown) : file_(path, std::move(shown)) {}
  /// @param name  at most 100 bytes
  /// @return where its bytes lie
  TarMember add(const std::string& name, std::span<const std::byte> bytes);
  std::uint64_t size() const { return size_; }
  /// Must be called at the end.
  void finish();

 private:
  void write(std::span<const std::byte> bytes);
  OutputFile file_;
  std::uint64_t size_ = 0;
};

}  // namespace uvit
