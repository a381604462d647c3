#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace uvit {

/// The content of a plain or gzip file. `damage` says why a gzip stream ended early ("" when it is whole); `bytes` is what was there until then.
struct PackedFile {
  std::vector<std::uint8_t> bytes;
  std::string damage;
};

/// Throws Error when the file cannot be opened.
PackedFile read_packed_file(const std::filesystem::path& path);

}  // namespace uvit
