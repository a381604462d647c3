#include "io/pth.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <random>

#include "core/atomic_file.h"
#include "core/hash.h"
#include "io/zip_archive.h"
#include "tests/io/pth_case.h"
#include "support/fixtures.h"
#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;
using Catch::Contains;
using namespace std::string_literals;

namespace {

/// Writes without a sync, which would make thousands of trials slow, and reads: true where it was read, false where it was refused.
bool try_read(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
  try {
    read_pth(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

TEST_CASE("a hostile pickle is refused with its reason") {
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "cposix\nsystem\n" +
                             text("true") + "\x85R."),
             Contains("x.pth") && Contains("posix.system") && Contains("no code"));
  CHECK_THAT(error_of_pickle("\x80\x04\x8c\x08"
                             "builtins\x8c\x04"
                             "eval\x93."),
             Contains("builtins.eval"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "cnumpy.core.multiarray\nscalar\n."),
             Contains("numpy.core.multiarray.scalar"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "ctorch.nn\nLinear\n)\x81."),
             Contains("torch.nn.Linear"));
  for (const std::string& truncated : {""s, "\x80"s, "\x80\x02"s,
                                       "\x80\x02X\x05\x00\x00\x00"
                                       "ab"s,
                                       "\x80\x02"
                                       "ccollections\n"s,
                                       "\x80\x02"
                                       "\x8d\xff\xff\xff\xff\xff\xff\xff\xff."s,
                                       "\x80\x02M\x01"s})
    CHECK_THAT(error_of_pickle(truncated), Contains("truncated"));
  CHECK_THAT(error_of_pickle("\x80\x02."), Contains("more from its stack than is there"));
  CHECK_THAT(error_of_pickle("\x80\x02(."), Contains("more from its stack than is there"));
  CHECK_THAT(error_of_pickle("\x80\x02K\x01(a."), Contains("more from its stack"));
  CHECK_THAT(error_of_pickle("\x80\x02t."), Contains("no mark"));
  CHECK_THAT(error_of_pickle("\x80\x02h\x05."), Contains("slot 5 that holds nothing"));
  CHECK_THAT(error_of_pickle("\x80\x02q\x05."), Contains("more from its stack"));
  CHECK_THAT(error_of_pickle("\x80\x02K\x01K\x02"
                             "a."),
             Contains("appends to what is no list"));
  CHECK_THAT(error_of_pickle("\x80\x02)K\x02"
                             "a."),
             Contains("appends to what is no list"));
  CHECK_THAT(error_of_pickle("\x80\x02](K\x01u."), Contains("sets items of what is no dict"));
  CHECK_THAT(error_of_pickle("\x80\x02}(K\x01u."), Contains("a key without a value"));
  CHECK_THAT(error_of_pickle("\x80\x02}}b."), Contains("state of an object"));
  CHECK_THAT(error_of_pickle("\x80\x02K\x01)R."), Contains("no class or function"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "ctorch\nFloatStorage\n)R."),
             Contains("calls a storage class"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "ctorch\nFloatStorage\n."),
             Contains("a class where a value belongs"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "ctorch._utils\n_rebuild_tensor_v2\n)R."),
             Contains("lacks arguments"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "ccollections\nOrderedDict\n](K\x01"
                             "e\x85R."),
             Contains("no pair where one belongs"));
  CHECK_THAT(error_of_pickle("\x80\x02"
                             "c_codecs\nencode\n" +
                             text("\u0100") + text("latin1") + "\x86R."),
             Contains("not Latin-1"));
  CHECK_THAT(error_of_pickle("\x80\x02\x8a\x09"
                             "123456789."),
             Contains("more than 64 bits"));
  CHECK_THAT(error_of_pickle("\x80\x02K\x01Q."), Contains("no tuple of a storage"));
  CHECK_THAT(error_of_pickle("\x80\x07."), Contains("pickle protocol 7"));
  CHECK_THAT(error_of_pickle("\x80\x02i."), Contains("opcode 0x69"));
}

TEST_CASE("sizes, strides and offsets outside a storage are refused") {
  const std::int64_t huge = std::int64_t{1} << 62;
  const auto refused = [](const std::string& from, std::int64_t offset, const std::vector<std::int64_t>& shape,
                          const std::vector<std::int64_t>& strides) {
    return error_of_pickle("\x80\x02" + tensor(from, offset, shape, strides) + ".");
  };
  CHECK_THAT(refused(storage(), 0, {13}, {1}), Contains("reaches outside its storage of 12 elements"));
  CHECK_THAT(refused(storage(), 1, {3, 4}, {4, 1}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), 12, {}, {}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), -1, {2}, {1}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), 0, {2}, {huge}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), 0, {huge, 5}, {4, 1}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), huge, {3, 3}, {huge, huge}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), 0, {2, 2}, {1}), Contains("reaches outside"));
  CHECK_THAT(refused(storage(), 0, {-2}, {1}), Contains("negative size or stride"));
  CHECK_THAT(refused(storage(), 4, {2}, {-1}), Contains("negative size or stride"));
  CHECK_THAT(refused(storage(), 0, std::vector<std::int64_t>(65, 1), std::vector<std::int64_t>(65, 1)), Contains("65 dimensions"));
  CHECK_THAT(refused(storage("torch\nFloatStorage", -1), 0, {0}, {1}), Contains("negative length"));
  CHECK_THAT(refused(storage("torch\nFloatStorage", 13), 0, {13}, {1}), Contains("storage 0 has 48 bytes, too few for 13 elements"));
  CHECK_THAT(refused(storage("torch\nDoubleStorage", huge), 0, {7}, {1}), Contains("too few"));
  CHECK_THAT(refused(storage("torch\nFloatStorage", 12, "7"), 0, {1}, {1}), Contains("no member a/data/7"));
  CHECK_THAT(refused(storage("torch\nFloatStorage", 12, "../data.pkl"), 0, {1}, {1}), Contains("no member a/data/../data.pkl"));
  CHECK_THAT(refused(storage(), 0, {std::int64_t{1} << 40}, {0}), Contains("many times the file's size"));
}

TEST_CASE("values that hold themselves or unfold without end are refused") {
  CHECK_THAT(error_of_pickle("\x80\x02]q\x01h\x01"
                             "a."),
             Contains("nested too deeply"));
  CHECK_THAT(error_of_pickle("\x80\x02" + std::string(100000, ']') + std::string(99999, 'a') + "."), Contains("nested too deeply"));
  std::string laughs = "\x80\x02]q\x01";  // each list holds the one before twenty times
  for (int level = 1; level < 20; ++level) {
    laughs += "](";
    for (int i = 0; i < 20; ++i) laughs += std::string("h") + static_cast<char>(level);
    laughs += std::string("eq") + static_cast<char>(level + 1);
  }
  CHECK_THAT(error_of_pickle(laughs + "."), Contains("many times the file's size"));
}

TEST_CASE("files that torch.save did not write are refused") {
  const test::ScratchFolder folder;
  CHECK_THAT(test::error_of([&] { read_pth(folder / "missing.pth"); }), Contains("missing.pth: No such file"));
  CHECK_THAT(test::error_of([&] { read_pth(folder.path()); }), Contains("it is not a file"));
  write_file(folder / "empty.pth", "");
  CHECK_THAT(test::error_of([&] { read_pth(folder / "empty.pth"); }), Contains("no zip file"));
  write_file(folder / "text.pth", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 \x6a\xa8\x50\x19.");  // how torch.save began before 1.6
  CHECK_THAT(test::error_of([&] { read_pth(folder / "text.pth"); }), Contains("no zip file"));
  const std::string none = "\x80\x02N.";
  const std::vector<ZipMember> members = {{"a/b/data.pkl", bytes_of(none)}};
  write_zip(folder / "other.pth", members, false);
  CHECK_THAT(test::error_of([&] { read_pth(folder / "other.pth"); }), Contains("without data.pkl"));
  file_around(folder / "big.pth", "\x80\x02N.", "big");
  CHECK_THAT(test::error_of([&] { read_pth(folder / "big.pth"); }), Contains("big-endian"));
  file_around(folder / "dict.pth", "\x80\x02}K\x01" + tensor(storage(), 0, {1}, {1}) + "s.");
  CHECK_THAT(test::error_of([&] { read_pth_state_dict(folder / "dict.pth"); }), Contains("a key that is no string"));
  file_around(folder / "none.pth", "\x80\x02}.");
  CHECK_THAT(test::error_of([&] { read_pth_state_dict(folder / "none.pth"); }), Contains("its dict is empty"));
}

TEST_CASE("fixtures cut short anywhere are refused") {
  const test::ScratchFolder folder;
  for (const std::filesystem::path& path : pth_fixtures()) {
    const std::string good = read_file(path);
    const std::size_t step = std::max<std::size_t>(1, good.size() / 40);
    for (std::size_t size = 0; size < good.size(); size += step) CHECK_FALSE(try_read(folder / "x.pth", good.substr(0, size)));
    CHECK_FALSE(try_read(folder / "x.pth", good.substr(0, good.size() - 1)));
    CHECK(try_read(folder / "x.pth", good));
  }
}

TEST_CASE("fixtures with flipped bytes are read or refused, never a crash") {
  const test::ScratchFolder folder;
  std::mt19937 random(1);
  for (const std::filesystem::path& path : pth_fixtures()) {
    const std::string good = read_file(path);
    const std::size_t directory = good.find("PK\x01\x02");  // half of the flips hit the table of contents, where the sizes are
    REQUIRE(directory != std::string::npos);
    for (int trial = 0; trial < 40; ++trial) {
      std::string bad = good;
      for (int flip = 0; flip < 1 + trial % 3; ++flip) {
        const std::size_t low = flip % 2 == 0 ? directory : 0;
        bad[low + random() % (good.size() - low)] ^= static_cast<char>(1 << (random() % 8));
      }
      try_read(folder / "x.pth", bad);
    }
  }
}

TEST_CASE("flipped bytes in the pickle itself, under a right checksum, are read or refused, never a crash") {
  const test::ScratchFolder folder;
  std::mt19937 random(2);
  int read = 0, refused = 0;
  for (const std::filesystem::path& path : pth_fixtures()) {
    const ZipReader zip(path);
    const std::string good = read_file(path);
    for (const std::string& name : zip.names()) {
      if (!name.ends_with("data.pkl")) continue;
      const std::vector<std::byte> pickle = zip.read(name);
      const std::string pickled(reinterpret_cast<const char*>(pickle.data()), pickle.size());
      const std::size_t at = good.find(pickled);
      REQUIRE(at != std::string::npos);
      const std::uint32_t old_crc = crc32(pickle);
      for (int trial = 0; trial < 150; ++trial) {
        std::string bad = good;
        for (int flip = 0; flip < 1 + trial % 4; ++flip) bad[at + random() % pickled.size()] = static_cast<char>(random());
        const std::uint32_t new_crc = crc32(std::as_bytes(std::span(bad).subspan(at, pickled.size())));
        const std::string old_bytes(reinterpret_cast<const char*>(&old_crc), 4);
        for (std::size_t place = 0; (place = bad.find(old_bytes, place)) != std::string::npos; place += 4)
          std::memcpy(bad.data() + place, &new_crc, 4);
        (try_read(folder / "x.pth", bad) ? read : refused)++;
      }
    }
  }
  CHECK(read > 0);  // else the checksum is wrong and the pickle was never reached
  CHECK(refused > 0);
}
