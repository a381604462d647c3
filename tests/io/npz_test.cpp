#include "io/npz.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <random>

#include "core/atomic_file.h"
#include "io/safetensors.h"
#include "io/zip_archive.h"
#include "support/fixtures.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;

namespace {

/// A .npy array with this header text around these bytes.
std::string npy(const std::string& header, const std::string& data, char version = 1) {
  std::string out = std::string("\x93NUMPY") + version + '\0' + static_cast<char>(header.size() & 0xFF) + static_cast<char>(header.size() >> 8);
  if (version > 1) out += std::string(2, '\0');
  return out + header + data;
}

TensorFile read_array(const std::string& array, const std::string& name = "a.npy") {
  const test::ScratchFolder folder;
  const std::vector<ZipMember> members = {{name, std::as_bytes(std::span(array))}};
  write_zip(folder / "x.npz", members, true);
  return read_npz(folder / "x.npz");
}

std::string error_of_array(const std::string& array) {
  const std::string message = test::error_of([&] { read_array(array); });
  CHECK_THAT(message, Contains("x.npz") && Contains("array a.npy: "));
  return message;
}

const std::string kSixBytes = "\1\2\3\4\5\6";

}  // namespace

TEST_CASE("npz fixtures, deflated and stored, give the statistics of the safetensors fixture") {
  const TensorFile expected = read_safetensors(test::fixtures() / "fid_stats.safetensors");
  std::size_t files = 0;
  for (const auto& item : std::filesystem::directory_iterator(test::fixtures())) {
    if (item.path().extension() != ".npz") continue;
    CAPTURE(item.path().string());
    const TensorFile file = read_npz(item.path());
    const std::vector<double> mu = file.at("mu").to_double(), sigma = file.at("sigma").to_double();
    CHECK(file.at("sigma").shape == std::vector<std::int64_t>(2, static_cast<std::int64_t>(mu.size())));
    std::string set = item.path().stem().string().substr(std::string("fid_stats_").size());  // for instance "A_64" or "A_64_uncompressed"
    set = set.substr(0, set.find("_uncompressed"));
    CHECK(mu == expected.at("mu_" + set).to_double());
    const std::vector<double> diagonal = expected.at("sigma_diag_" + set).to_double();
    REQUIRE(diagonal.size() == mu.size());
    for (std::size_t i = 0; i < mu.size(); ++i) REQUIRE(sigma[i * mu.size() + i] == diagonal[i]);
    ++files;
  }
  CHECK(files > 0);
}

TEST_CASE("what write_npz writes, read_npz reads") {
  TensorFile file;
  for (DType dtype : {DType::f64, DType::f32, DType::f16, DType::i64, DType::i32, DType::i16, DType::i8, DType::u8, DType::boolean})
    file.tensors.emplace_back(std::string(name_of(dtype)), HostTensor{dtype, {2, 3}, std::vector<std::byte>(6 * size_of(dtype), std::byte{1})});
  file.tensors.emplace_back("scalar", HostTensor{DType::f64, {}, std::vector<std::byte>(8)});
  file.tensors.emplace_back("empty", HostTensor{DType::f64, {0, 5}, {}});
  const test::ScratchFolder folder;
  write_npz(folder / "a.npz", file);
  const TensorFile back = read_npz(folder / "a.npz");
  REQUIRE(back.tensors.size() == file.tensors.size());
  for (std::size_t i = 0; i < file.tensors.size(); ++i) {
    CHECK(back.tensors[i].first == file.tensors[i].first);
    CHECK(back.tensors[i].second.dtype == file.tensors[i].second.dtype);
    CHECK(back.tensors[i].second.shape == file.tensors[i].second.shape);
    CHECK((back.tensors[i].second.data == file.tensors[i].second.data));
  }
  write_npz(folder / "b.npz", file);
  CHECK(read_file(folder / "a.npz") == read_file(folder / "b.npz"));
}

TEST_CASE("column-major arrays, the three versions of the header, and free spelling of it") {
  const TensorFile file = read_array(npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n", kSixBytes));
  CHECK(file.at("a").to_double() == std::vector<double>{1, 3, 5, 2, 4, 6});
  for (char version : {'\1', '\2', '\3'})
    CHECK(read_array(npy("{'shape':(6,),'fortran_order':False,'descr':'|u1'}", kSixBytes, version)).at("a").to_double() ==
          std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK(read_array(npy("{'descr': '|i1', 'fortran_order': True, 'shape': ()}", "\xff")).at("a").to_double() == std::vector<double>{-1});
  CHECK(read_array(npy("{'descr': '|i1', 'fortran_order': True, 'shape': (3, 0)}", "")).at("a").to_double().empty());
  CHECK(read_array(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6,)}", kSixBytes), "without_extension").find("without_extension"));
}

TEST_CASE("a malformed .npz is refused with its reason") {
  CHECK_THAT(error_of_array("not an array"), Contains("no .npy array"));
  CHECK_THAT(error_of_array("\x93NUMPY"), Contains("truncated"));
  CHECK_THAT(error_of_array(npy("{}", "").substr(0, 11)), Contains("truncated"));
  CHECK_THAT(error_of_array(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), }", kSixBytes, 9)), Contains("version 9"));
  CHECK_THAT(error_of_array(npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "1234")), Contains("'>f4' are not read"));
  CHECK_THAT(error_of_array(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "1234")), Contains("pickled Python objects"));
  CHECK_THAT(error_of_array(npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", "1234")), Contains("structured arrays"));
  CHECK_THAT(error_of_array(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }", kSixBytes)), Contains("6 bytes are no U8 of shape [7]"));
  CHECK_THAT(error_of_array(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }", "")),
             Contains("0 bytes are no U8"));
  for (const char* header :
       {"", "{", "{}", "{'descr'", "{'descr': '|u1'}", "{'descr': '|u1', 'fortran_order': maybe, 'shape': (6,)}", "{'x': 1}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-6,)}", "{'descr': '|u1', 'fortran_order': False, 'shape': (6",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}", "{'descr': '|u1' 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 6}", "{'descr: |u1"})
    CHECK_THAT(error_of_array(npy(header, kSixBytes)), Contains("header is malformed"));
  const test::ScratchFolder folder;
  CHECK_THAT(test::error_of([&] { read_npz(folder / "missing.npz"); }), Contains("missing.npz: No such file"));
  write_file(folder / "x.npz", "not a zip");
  CHECK_THAT(test::error_of([&] { read_npz(folder / "x.npz"); }), Contains("no zip file"));
}

TEST_CASE("npz fixtures with flipped bytes or cut short are read or refused, never a crash") {
  const test::ScratchFolder folder;
  std::mt19937 random(3);
  const auto try_read = [&](const std::string& content) {
    std::ofstream(folder / "x.npz", std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
    try {
      read_npz(folder / "x.npz");
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  for (const auto& item : std::filesystem::directory_iterator(test::fixtures())) {
    if (item.path().extension() != ".npz" || item.file_size() > 100000) continue;
    const std::string good = read_file(item.path());
    CHECK(try_read(good));
    for (std::size_t size = 0; size < good.size(); size += 997) CHECK_FALSE(try_read(good.substr(0, size)));
    for (int trial = 0; trial < 300; ++trial) {
      std::string bad = good;
      const std::size_t low = trial % 2 ? 0 : good.size() - 300;
      bad[low + random() % (good.size() - low)] ^= static_cast<char>(1 << (random() % 8));
      try_read(bad);
    }
  }
}

TEST_CASE("arrays with bytes changed under a right checksum are read or refused by name, never a crash") {
  std::mt19937 random(7);
  const std::string header = "{'descr': '<f8', 'fortran_order': True, 'shape': (3, 4), }\n";
  const std::string alphabet = "0123456789(),:'{} <>|fiub-.\n\x93";
  std::size_t read = 0, refused = 0;
  for (int trial = 0; trial < 1500; ++trial) {
    std::string array = npy(header, std::string(96, '\x3f'), static_cast<char>(1 + trial % 3));
    for (std::size_t changes = 1 + random() % 3; changes-- > 0;) {
      const std::size_t at = random() % (header.size() + 14);
      array[at] = random() % 2 ? alphabet[random() % alphabet.size()] : static_cast<char>(random());
    }
    if (random() % 8 == 0) array.resize(random() % array.size());
    try {
      const TensorFile file = read_array(array);
      CHECK(file.at("a").data.size() <= array.size());
      ++read;
    } catch (const Error& e) {
      CHECK_THAT(e.what(), Contains("x.npz") && !Contains("\n"));
      ++refused;
    }
  }
  CHECK(read > 0);
  CHECK(refused > read);
}

TEST_CASE("an archive whose directory lists the same bytes many times is refused") {
  const test::ScratchFolder folder;
  HostTensor noise{DType::u8, {4000}, std::vector<std::byte>(4000)};  // which deflate cannot pack
  std::mt19937 random(1);
  for (std::byte& byte : noise.data) byte = static_cast<std::byte>(random());
  write_npz(folder / "x.npz", TensorFile{{{"a", noise}}, {}});
  std::string zip = read_file(folder / "x.npz");
  constexpr std::size_t kEnd = 22;  // end of central directory: entries at 8 and 10, size of the directory at 12, its place at 16
  std::string end = zip.substr(zip.size() - kEnd);
  const auto number = [&](std::size_t at) { return static_cast<unsigned char>(end[at]) | static_cast<unsigned char>(end[at + 1]) << 8; };
  const std::string directory = zip.substr(static_cast<std::size_t>(number(16)), static_cast<std::size_t>(number(12)));
  zip.resize(static_cast<std::size_t>(number(16)));
  constexpr int kTimes = 5;
  for (int i = 0; i < kTimes; ++i) zip += directory;
  const std::size_t size = directory.size() * kTimes;
  end[8] = end[10] = static_cast<char>(kTimes);
  end[12] = static_cast<char>(size), end[13] = static_cast<char>(size >> 8);
  write_file(folder / "y.npz", std::string_view(zip + end));
  CHECK_THAT(test::error_of([&] { read_npz(folder / "y.npz"); }), Catch::Contains("y.npz") && Catch::Contains("larger than the file"));
}

TEST_CASE("write_npz refuses what it cannot write and leaves no partial file") {
  const test::ScratchFolder folder;
  std::mt19937 random(4);
  TensorFile file;
  file.tensors.emplace_back("a", HostTensor{DType::u8, {50000}, std::vector<std::byte>(50000)});
  for (std::byte& b : file.tensors[0].second.data) b = static_cast<std::byte>(random());  // noise, which does not deflate
  {
    const test::FileSizeLimit limit(20000);
    CHECK_THAT(test::error_of([&] { write_npz(folder / "a.npz", file); }), Contains((folder / "a.npz").string()) && Contains("File too large"));
  }
  CHECK(folder.entries() == 0);
  CHECK_THAT(test::error_of([&] { write_npz(folder / "none/a.npz", file); }), Contains("none/a.npz"));
  file.tensors.emplace_back("b", HostTensor{DType::bf16, {1}, std::vector<std::byte>(2)});
  CHECK_THAT(test::error_of([&] { write_npz(folder / "a.npz", file); }), Contains("array b: NumPy has no BF16"));
  file.tensors[1] = {"b", HostTensor{DType::f32, {1}, {}}};
  CHECK_THAT(test::error_of([&] { write_npz(folder / "a.npz", file); }), Contains("array b: 0 bytes are no F32 of shape [1]"));
  file.tensors[1] = file.tensors[0];
  CHECK_THAT(test::error_of([&] { write_npz(folder / "a.npz", file); }), Contains("a.npy"));
  CHECK(folder.entries() == 0);
}
