#include "data/image_check.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "core/hash.h"

namespace uvit {
namespace {

class Bytes {
 public:
  explicit Bytes(std::span<const std::byte> file) : file_(file) {}
  std::size_t size() const { return file_.size(); }
  std::uint32_t u8(std::size_t at) const { return std::to_integer<std::uint32_t>(file_[at]); }
  std::uint32_t big16(std::size_t at) const { return u8(at) << 8 | u8(at + 1); }
  std::uint32_t big32(std::size_t at) const { return big16(at) << 16 | big16(at + 2); }
  std::uint32_t little16(std::size_t at) const { return u8(at) | u8(at + 1) << 8; }
  std::uint32_t little32(std::size_t at) const { return little16(at) | little16(at + 2) << 16; }
  bool has(std::size_t at, std::string_view text) const {
    return at + text.size() <= size() && std::memcmp(file_.data() + at, text.data(), text.size()) == 0;
  }
  /// Place of the next byte 0xFF from `at` on, else the end.
  std::size_t find_ff(std::size_t at) const {
    const void* found = at < size() ? std::memchr(file_.data() + at, 0xFF, size() - at) : nullptr;
    return found ? static_cast<std::size_t>(static_cast<const std::byte*>(found) - file_.data()) : size();
  }
  std::span<const std::byte> part(std::size_t at, std::size_t length) const { return file_.subspan(at, length); }

 private:
  std::span<const std::byte> file_;
};

std::string cut(std::size_t expected, std::size_t found) { return fmt::format("it is cut: expected {} bytes or more, found {}", expected, found); }

// A decoder takes memory for all pixels before it reads one: a header of a few bytes must not ask for gigabytes.
// @param pixels_per_byte  the most that the format can pack into a byte
std::string size_damage(const Bytes& file, std::uint64_t width, std::uint64_t height, std::uint64_t pixels_per_byte) {
  constexpr std::uint64_t kMostPixels = 100'000'000;
  const bool fits = width <= kMostPixels && height <= kMostPixels && width * height <= kMostPixels;
  if (fits && width * height <= pixels_per_byte * file.size()) return "";
  return fmt::format("its header speaks of {} x {} pixels, {}", width, height,
                     fits ? fmt::format("which {} bytes cannot hold", file.size()) : fmt::format("more than the {} that are read", kMostPixels));
}

// Chunks of (length, type, data, CRC-32 of type and data) up to IEND: PNG specification, section 5.3.
std::string png_damage(const Bytes& file) {
  std::size_t at = 8;
  // IHDR comes first. Deflate packs at most 1032 bytes into one, and a byte holds at most eight pixels.
  if (file.size() >= 33 && file.has(12, "IHDR")) {
    const std::string size = size_damage(file, file.big32(16), file.big32(20), 8 * 1032);
    if (!size.empty()) return size;
  }
  while (true) {
    if (at + 12 > file.size()) return cut(at + 12, file.size());
    const std::size_t length = file.big32(at);
    if (at + 12 + length > file.size()) return cut(at + 12 + length, file.size());
    if (crc32(file.part(at + 4, length + 4)) != file.big32(at + 8 + length)) return fmt::format("the chunk at byte {} has a wrong checksum", at);
    if (file.has(at + 4, "IEND")) return "";
    at += 12 + length;
  }
}

// Segments of (0xFF, marker, length, data); after a start of scan, entropy-coded data runs to the next marker: ITU-T T.81, annex B.
std::string jpeg_damage(const Bytes& file) {
  std::size_t at = 2;
  while (at + 1 < file.size()) {
    if (file.u8(at) != 0xFF) return fmt::format("byte {} should start a marker", at);
    const std::uint32_t marker = file.u8(at + 1);
    if (marker == 0xD9) return "";
    if (marker == 0xFF) {  // fill byte
      ++at;
      continue;
    }
    if (at + 3 >= file.size()) break;
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && at + 9 <= file.size()) {
      // A block of 8 x 8 takes a bit at least; a run of empty ones in a progressive scan takes fewer, so this is a bound on what is met, not on the format.
      const std::string size = size_damage(file, file.big16(at + 7), file.big16(at + 5), 4096);
      if (!size.empty()) return size;
    }
    at += 2 + file.big16(at + 2);
    if (marker != 0xDA) continue;
    const auto ends_scan = [&] {
      const std::uint32_t next = file.u8(at + 1);
      return file.u8(at) == 0xFF && next != 0 && next != 0xFF && !(next >= 0xD0 && next <= 0xD7);  // not a stuffed 0xFF, fill byte or restart
    };
    for (at = file.find_ff(at); at + 1 < file.size() && !ends_scan(); at = file.find_ff(at + 1)) {
    }
  }
  return fmt::format("it is cut: no end-of-image marker within its {} bytes", file.size());
}

std::string bmp_damage(const Bytes& file) {
  if (file.size() < 54) return cut(54, file.size());
  const std::uint64_t offset = file.little32(10), width = file.little32(18), bits = file.little16(28), compression = file.little32(30);
  const std::uint64_t height = static_cast<std::uint64_t>(std::llabs(static_cast<std::int32_t>(file.little32(22))));
  const std::string size = size_damage(file, width, height, compression == 0 || compression == 3 ? 8 : 255);
  if (!size.empty()) return size;
  const bool uncompressed = compression == 0 || compression == 3;
  const std::uint64_t expected = uncompressed ? offset + (width * bits + 31) / 32 * 4 * height : offset;
  return file.size() < expected ? cut(expected, file.size()) : "";
}

// Size as the first chunk has it: RFC 9649, sections 2.6, 2.7, 3.4 and RFC 6386, section 9.1.
std::string webp_damage(const Bytes& file) {
  const std::size_t expected = 8 + static_cast<std::size_t>(file.little32(4));
  if (file.size() < expected) return cut(expected, file.size());
  constexpr std::size_t kData = 20;  // of the first chunk, behind RIFF, size, WEBP, the chunk's name and size
  if (file.size() < kData + 10) return cut(kData + 10, file.size());
  const auto little24 = [&](std::size_t at) { return file.little16(at) | file.u8(at + 2) << 16; };
  // A lossy block of 16 x 16 that is skipped costs some hundredths of a bit; a lossless image of one colour costs no bit a pixel.
  constexpr std::uint64_t kLossy = 100'000, kAny = std::uint64_t{1} << 32;
  if (file.has(12, "VP8 ")) return size_damage(file, file.little16(kData + 6) & 0x3FFF, file.little16(kData + 8) & 0x3FFF, kLossy);
  if (file.has(12, "VP8L")) {
    const std::uint32_t bits = file.little32(kData + 1);
    return size_damage(file, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, kAny);
  }
  if (file.has(12, "VP8X")) return size_damage(file, little24(kData + 4) + 1, little24(kData + 7) + 1, kAny);
  return "its first chunk is none of VP8, VP8L and VP8X";
}

}  // namespace

std::string image_damage(std::span<const std::byte> bytes) {
  const Bytes file(bytes);
  if (file.size() == 0) return "it is empty";
  if (file.has(0, "\x89PNG\r\n\x1a\n")) return png_damage(file);
  if (file.has(0, "\xFF\xD8\xFF")) return jpeg_damage(file);
  if (file.has(0, "RIFF") && file.has(8, "WEBP")) return webp_damage(file);
  if (file.has(0, "BM")) return bmp_damage(file);
  return "it is not a JPEG, PNG, WebP or BMP image";
}

}  // namespace uvit
