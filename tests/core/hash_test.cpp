#include "core/hash.h"

#include <catch2/catch.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "support/scratch.h"

using namespace uvit;

namespace {
std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }
std::uint32_t unmask(std::uint32_t masked) {
  const std::uint32_t rotated = masked - 0xA282EAD8;
  return (rotated << 15) | (rotated >> 17);
}
}  // namespace

TEST_CASE("sha256 of the examples of FIPS 180-4, from memory and from a file") {
  CHECK(sha256({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256(bytes("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const test::ScratchFolder folder;
  const std::string million(1000000, 'a');
  write_file(folder / "million", million);
  CHECK(sha256_of_file(folder / "million") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  CHECK(test::error_of([&] { sha256_of_file(folder / "missing"); }).find("missing: No such file") != std::string::npos);
  CHECK(test::error_of([&] { sha256_of_file(folder.path()); }).find("directory") != std::string::npos);
}

TEST_CASE("crc32 and crc32c give the check values of their definitions") {
  CHECK(crc32(bytes("123456789")) == 0xCBF43926);
  CHECK(unmask(masked_crc32c(bytes("123456789"))) == 0xE3069283);
  CHECK(unmask(masked_crc32c(bytes(std::string(32, '\0')))) == 0x8A9136AA);  // RFC 3720, B.4
  CHECK(unmask(masked_crc32c({})) == 0);
}
