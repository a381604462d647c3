#include <catch2/catch.hpp>
#include <span>
#include <string>

#include "core/atomic_file.h"
#include "core/hash.h"
#include "data/apng.h"
#include "support/scratch.h"

using namespace uvit;

namespace {

struct Chunk {
  std::string type, data;
};

std::uint32_t number(const std::string& bytes, std::size_t at, int count = 4) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)]);
  return value;
}

/// Every chunk, its checksum checked.
std::vector<Chunk> parse(const std::vector<std::byte>& file) {
  const std::string bytes(reinterpret_cast<const char*>(file.data()), file.size());
  std::vector<Chunk> chunks;
  for (std::size_t at = 8; at < bytes.size();) {
    const std::size_t length = number(bytes, at);
    REQUIRE(at + length + 12 <= bytes.size());
    const std::string body = bytes.substr(at + 4, length + 4);
    CHECK(number(bytes, at + 8 + length) == crc32(std::as_bytes(std::span(body))));
    chunks.push_back({body.substr(0, 4), body.substr(4)});
    at += length + 12;
  }
  return chunks;
}

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xFF);
  return bytes;
}

/// A chunk of type and data.
std::string packed(const std::string& body) {
  return big_endian(static_cast<std::uint32_t>(body.size() - 4)) + body + big_endian(crc32(std::as_bytes(std::span(body))));
}

Image frame(std::uint8_t value) {
  Image image{3, 5, 7, std::vector<std::uint8_t>(3 * 5 * 7, value)};
  image.pixels[4] = 200;
  return image;
}

}  // namespace

TEST_CASE("an animated PNG holds every frame, numbered in order, and reads as its first frame") {
  const std::vector<std::byte> file = encode_apng({frame(10), frame(90), frame(250)}, 80, 1500);
  const std::vector<Chunk> chunks = parse(file);
  CHECK(chunks.front().type == "IHDR");
  CHECK(chunks[1].type == "acTL");
  CHECK(number(chunks[1].data, 0) == 3);
  CHECK(chunks.back().type == "IEND");
  std::uint32_t sequence = 0;
  std::vector<std::uint32_t> delays;
  for (const Chunk& chunk : chunks) {
    if (chunk.type != "fcTL" && chunk.type != "fdAT") continue;
    CHECK(number(chunk.data, 0) == sequence++);
    if (chunk.type != "fcTL") continue;
    CHECK(number(chunk.data, 4) == 7);
    CHECK(number(chunk.data, 8) == 5);
    CHECK(number(chunk.data, 22, 2) == 1000);
    delays.push_back(number(chunk.data, 20, 2));
  }
  CHECK(delays == std::vector<std::uint32_t>{80, 80, 1500});

  const test::ScratchFolder folder;
  const std::string bytes(reinterpret_cast<const char*>(file.data()), file.size());
  write_file(folder / "a.png", bytes);
  CHECK(read_image(folder / "a.png", 3).pixels == frame(10).pixels);

  // The data of the second frame in a PNG of its own: signature and IHDR, IDAT, IEND.
  std::string second = bytes.substr(0, 33);
  int frames = 0;
  for (const Chunk& chunk : chunks) {
    frames += chunk.type == "fcTL";
    if (chunk.type == "fdAT" && frames == 2) second += packed("IDAT" + chunk.data.substr(4));
  }
  write_file(folder / "b.png", second + packed("IEND"));
  CHECK(read_image(folder / "b.png", 3).pixels == frame(90).pixels);
}

TEST_CASE("an animation refuses no frames and frames of two sizes") {
  CHECK_THAT(test::error_of([] { encode_apng({}, 80, 80); }), Catch::Contains("frame"));
  Image other = frame(1);
  other.width = 5;
  other.height = 7;
  CHECK_THAT(test::error_of([&] { encode_apng({frame(1), other}, 80, 80); }), Catch::Contains("one size"));
}
