#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace uvit {

/// SHA-256 as 64 hexadecimal digits: the identity of weights and references in a recipe.
std::string sha256(std::span<const std::byte> bytes);
std::string sha256_of_file(const std::filesystem::path& path);

/// CRC-32 (zlib's): finds damage, the checksum of each tensor in a checkpoint.
std::uint32_t crc32(std::span<const std::byte> bytes);
/// CRC-32C (Castagnoli), masked as TFRecord wants it.
std::uint32_t masked_crc32c(std::span<const std::byte> bytes);

}  // namespace uvit
