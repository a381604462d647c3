#include "data/apng.h"

#include <cstring>
#include <span>
#include <string_view>

#include "core/error.h"
#include "core/hash.h"

namespace uvit {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::size_t kSignature = 8;  // bytes before the first chunk

void put(Bytes& out, std::uint32_t value, int bytes = 4) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out.push_back(static_cast<std::byte>(value >> shift & 0xFF));
}

std::uint32_t get(std::span<const std::byte> in) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(in[static_cast<std::size_t>(i)]);
  return value;
}

void put_chunk(Bytes& out, std::string_view type, std::span<const std::byte> data) {
  put(out, static_cast<std::uint32_t>(data.size()));
  Bytes body;
  for (const char letter : type) body.push_back(static_cast<std::byte>(letter));
  body.insert(body.end(), data.begin(), data.end());
  out.insert(out.end(), body.begin(), body.end());
  put(out, crc32(body));
}

/// The data of all chunks of one type, one after the other, of a PNG that encode_png made.
std::vector<std::span<const std::byte>> chunks(const Bytes& png, std::string_view type) {
  std::vector<std::span<const std::byte>> found;
  for (std::size_t at = kSignature; at + 12 <= png.size();) {
    const std::span<const std::byte> rest(png.data() + at, png.size() - at);
    const std::size_t length = get(rest);
    if (std::memcmp(rest.data() + 4, type.data(), 4) == 0) found.push_back(rest.subspan(8, length));
    at += length + 12;
  }
  return found;
}

}  // namespace

std::vector<std::byte> encode_apng(const std::vector<Image>& frames, std::int64_t frame_ms, std::int64_t last_ms) {
  if (frames.empty()) throw Error("an animation needs at least one frame");
  const Image& first = frames.front();
  std::uint32_t sequence = 0;
  Bytes out;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const Image& frame = frames[i];
    if (frame.width != first.width || frame.height != first.height || frame.channels != first.channels)
      throw Error("the frames of an animation must have one size");
    const Bytes png = encode_png(frame);
    if (i == 0) {
      out.assign(png.begin(), png.begin() + kSignature);
      put_chunk(out, "IHDR", chunks(png, "IHDR").front());
      Bytes control;
      put(control, static_cast<std::uint32_t>(frames.size()));
      put(control, 0);  // repeats: for ever
      put_chunk(out, "acTL", control);
    }
    Bytes control;
    put(control, sequence++);
    put(control, static_cast<std::uint32_t>(frame.width));
    put(control, static_cast<std::uint32_t>(frame.height));
    put(control, 0);  // x and y offset
    put(control, 0);
    put(control, static_cast<std::uint32_t>(i + 1 == frames.size() ? last_ms : frame_ms), 2);
    put(control, 1000, 2);
    put(control, 0, 2);  // neither disposed of nor blended
    put_chunk(out, "fcTL", control);
    for (const std::span<const std::byte> data : chunks(png, "IDAT")) {
      Bytes numbered;
      if (i > 0) put(numbered, sequence++);
      numbered.insert(numbered.end(), data.begin(), data.end());
      put_chunk(out, i == 0 ? "IDAT" : "fdAT", numbered);
    }
  }
  put_chunk(out, "IEND", {});
  return out;
}

}  // namespace uvit
