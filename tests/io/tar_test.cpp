#include "io/tar.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>

#include "core/atomic_file.h"
#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;
namespace fs = std::filesystem;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A header block with a checksum that fits.
std::string header(const std::string& name, const std::string& size, char type) {
  std::string block(kTarBlock, '\0');
  const auto put = [&](std::size_t at, const std::string& text) { std::memcpy(block.data() + at, text.data(), text.size()); };
  put(0, name);
  put(100, "0000644");
  put(124, size);
  put(148, "        ");
  block[156] = type;
  put(257, "ustar");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum) + std::string(1, '\0') + " ");
  return block;
}

std::string padded(std::string text) {
  text.resize((text.size() + kTarBlock - 1) / kTarBlock * kTarBlock, '\0');
  return text;
}

const std::string kEnd(2 * kTarBlock, '\0');

std::string error_of_list(const fs::path& path, const std::string& content) {
  write_file(path, std::string_view(content));
  return error_of([&] { list_tar(path); });
}

}  // namespace

TEST_CASE("a tar archive lists what was written, and equal members give equal bytes") {
  const ScratchFolder folder;
  const std::vector<std::pair<std::string, std::string>> members = {{"a.txt", "hello"}, {"empty", ""}, {std::string(100, 'n'), std::string(512, 'x')}, {"last", std::string(513, 'y')}};
  for (const char* file : {"one.tar", "two.tar"}) {
    TarWriter writer(folder / file, folder / file);
    for (const auto& [name, text] : members) {
      const TarMember member = writer.add(name, bytes_of(text));
      CHECK(member.size == text.size());
      CHECK(member.offset % kTarBlock == 0);
    }
    writer.finish();
    CHECK(writer.size() == fs::file_size(folder / file));
  }
  const std::string content = read_file(folder / "one.tar");
  CHECK(content == read_file(folder / "two.tar"));
  const std::vector<TarMember> listed = list_tar(folder / "one.tar");
  REQUIRE(listed.size() == members.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    CHECK(listed[i].name == members[i].first);
    CHECK(content.substr(listed[i].offset, listed[i].size) == members[i].second);
    const auto block = bytes_of(content).subspan(listed[i].offset - kTarBlock, kTarBlock);
    CHECK(tar_header_damage(block, listed[i].size).empty());
    CHECK_THAT(tar_header_damage(block, listed[i].size + 1), Catch::Contains("says"));
    CHECK(tar_member_name(block) == members[i].first);
  }
  TarWriter writer(folder / "bad.tar", folder / "bad.tar");
  CHECK_THAT(error_of([&] { writer.add(std::string(101, 'n'), {}); }), Catch::Contains("does not fit"));
}

TEST_CASE("long names and sizes of GNU tar and pax are read, folders and links passed over") {
  const ScratchFolder folder;
  const std::string long_name(300, 'g'), pax_record = "path=" + std::string(200, 'p');
  const std::string pax = fmt::format("{} {}\n", pax_record.size() + 5, pax_record) + "9 size=3\n";
  std::string base256(12, '\0');
  base256[0] = '\x80';
  base256[11] = 4;
  const std::string content = header("folder/", "00000000000", '5') + header("link", "00000000000", '2') +
                              header("././@LongLink", fmt::format("{:011o}", long_name.size() + 1), 'L') + padded(long_name + '\0') + header("g", "00000000001", '0') +
                              padded("1") + header("pax", fmt::format("{:011o}", pax.size()), 'x') + padded(pax) + header("p", "00000000000", '0') + padded("333") +
                              header("b", base256, '\0') + padded("4444") + kEnd;
  write_file(folder / "mixed.tar", std::string_view(content));
  const std::vector<TarMember> members = list_tar(folder / "mixed.tar");
  REQUIRE(members.size() == 3);
  CHECK(members[0].name == long_name);
  CHECK(members[0].size == 1);
  CHECK(members[1].name == std::string(200, 'p'));
  CHECK(members[1].size == 3);
  CHECK(content.substr(members[1].offset, 3) == "333");
  CHECK(members[2].name == "b");
  CHECK(content.substr(members[2].offset, members[2].size) == "4444");
}

TEST_CASE("a damaged or cut tar archive is named with the byte") {
  const ScratchFolder folder;
  const fs::path path = folder / "x.tar";
  const std::string good = header("a", "00000000005", '0') + padded("hello");
  CHECK_THAT(error_of_list(path, ""), Catch::Contains("x.tar") && Catch::Contains("truncated"));
  CHECK_THAT(error_of_list(path, good), Catch::Contains("truncated") && Catch::Contains("expected 2048") && Catch::Contains("found 1024"));
  CHECK_THAT(error_of_list(path, good.substr(0, 700)), Catch::Contains("truncated") && Catch::Contains("expected 1024"));
  std::string altered = good + good + kEnd;
  altered[1024 + 3] = 'z';
  CHECK_THAT(error_of_list(path, altered), Catch::Contains("damaged at byte 1024") && Catch::Contains("no tar header"));
  CHECK_THAT(error_of_list(path, header("a", "0000000000z", '0') + kEnd), Catch::Contains("no size"));
  CHECK_THAT(error_of_list(path, header("a", std::string(12, '\xff'), '0') + kEnd), Catch::Contains("no size"));
  CHECK_THAT(error_of_list(path, header("a", "77777777777", '0') + kEnd), Catch::Contains("truncated"));
  for (const char* pax : {"5 x", "999 path=a\n", "0 path=a\n", "10 pathaaa\n", "11 size=9x\n"})
    CHECK_THAT(error_of_list(path, header("p", fmt::format("{:011o}", std::strlen(pax)), 'x') + padded(pax) + kEnd), Catch::Contains("pax"));
  CHECK_THAT(error_of_list(path, header("p", "00010000001", 'L') + std::string(std::size_t{3} << 20, '\0')), Catch::Contains("name has"));
  CHECK_THAT(error_of([&] { list_tar(folder / "nowhere.tar"); }), Catch::Contains("nowhere.tar"));
}
