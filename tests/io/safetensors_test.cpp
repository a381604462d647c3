#include "io/safetensors.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "core/atomic_file.h"
#include "support/compare.h"
#include "support/fixtures.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;

namespace {

template <class T>
HostTensor tensor_of(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
  HostTensor tensor{dtype, std::move(shape), std::vector<std::byte>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

std::string file_with(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + std::string(data_bytes, 'd');
}

std::string error_for(const std::string& content) {
  const test::ScratchFolder folder;
  write_file(folder / "x.safetensors", content);
  const std::string message = test::error_of([&] { read_safetensors(folder / "x.safetensors"); });
  CHECK_THAT(message, Contains("x.safetensors"));
  return message;
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

std::string object(const std::string& entries) { return fmt::format("{{{}}}", entries); }

}  // namespace

TEST_CASE("every dtype widens to double") {
  using Values = std::vector<double>;
  CHECK(tensor_of<double>(DType::f64, {2}, {1.5, -2}).to_double() == Values{1.5, -2});
  CHECK(tensor_of<float>(DType::f32, {2}, {1.5f, -2}).to_double() == Values{1.5, -2});
  CHECK(tensor_of<std::int64_t>(DType::i64, {1}, {-5}).to_double() == Values{-5});
  CHECK(tensor_of<std::int32_t>(DType::i32, {1}, {-5}).to_double() == Values{-5});
  CHECK(tensor_of<std::int16_t>(DType::i16, {1}, {-5}).to_double() == Values{-5});
  CHECK(tensor_of<std::int8_t>(DType::i8, {1}, {-5}).to_double() == Values{-5});
  CHECK(tensor_of<std::uint8_t>(DType::u8, {1}, {251}).to_double() == Values{251});
  CHECK(tensor_of<std::uint8_t>(DType::boolean, {2}, {1, 0}).to_double() == Values{1, 0});
  // 1, -2, the largest half, the smallest subnormal, infinity
  CHECK(tensor_of<std::uint16_t>(DType::f16, {5}, {0x3C00, 0xC000, 0x7BFF, 0x0001, 0x7C00}).to_double() ==
        Values{1, -2, 65504, std::ldexp(1.0, -24), INFINITY});
  CHECK(std::isnan(tensor_of<std::uint16_t>(DType::f16, {}, {0x7E00}).to_double()[0]));
  CHECK(tensor_of<std::uint16_t>(DType::bf16, {3}, {0x3F80, 0xC000, 0xFF80}).to_double() == Values{1, -2, -INFINITY});
  CHECK_THROWS_AS(tensor_of<float>(DType::f32, {3}, {1, 2}).to_double(), std::logic_error);
}

TEST_CASE("byte_size refuses sizes that no memory holds") {
  CHECK(byte_size(DType::f32, {}) == 4);
  CHECK(byte_size(DType::f32, {2, 0, 3}) == 0);
  CHECK(byte_size(DType::f64, {2, 3}) == 48);
  CHECK_FALSE(byte_size(DType::u8, {-1}));
  CHECK_FALSE(byte_size(DType::u8, {std::int64_t{1} << 40, std::int64_t{1} << 40}));
  CHECK_FALSE(byte_size(DType::f64, {std::int64_t{1} << 61}));
}

TEST_CASE("at names the nearest tensor") {
  TensorFile file;
  file.tensors.emplace_back("blocks.0.weight", tensor_of<float>(DType::f32, {1}, {1}));
  CHECK(file.find("blocks.0.bias") == nullptr);
  CHECK_THAT(test::error_of([&] { file.at("blocks.0.weigth"); }), Contains("'blocks.0.weigth'") && Contains("did you mean 'blocks.0.weight'?"));
}

TEST_CASE("what write_safetensors writes, read_safetensors reads: order, metadata, every dtype, empty tensors and scalars") {
  TensorFile file;
  file.metadata = {{"format", "uvit"}, {"quote", "\"\n\u00fc"}};
  file.tensors.emplace_back("flag", tensor_of<std::uint8_t>(DType::boolean, {3}, {1, 0, 1}));
  file.tensors.emplace_back("half", tensor_of<std::uint16_t>(DType::f16, {1, 1}, {0x3C00}));
  file.tensors.emplace_back("empty", HostTensor{DType::i32, {0, 4}, {}});
  file.tensors.emplace_back("scalar", tensor_of<double>(DType::f64, {}, {2.5}));
  file.tensors.emplace_back("float", tensor_of<float>(DType::f32, {2, 1}, {1, 2}));
  const test::ScratchFolder folder;
  write_safetensors(folder / "a.safetensors", file);
  const TensorFile back = read_safetensors(folder / "a.safetensors");
  CHECK(back.metadata == file.metadata);
  REQUIRE(back.tensors.size() == file.tensors.size());
  for (std::size_t i = 0; i < file.tensors.size(); ++i) {
    CHECK(back.tensors[i].first == file.tensors[i].first);
    CHECK(back.tensors[i].second.dtype == file.tensors[i].second.dtype);
    CHECK(back.tensors[i].second.shape == file.tensors[i].second.shape);
    CHECK(back.tensors[i].second.data == file.tensors[i].second.data);
  }
  write_safetensors(folder / "none.safetensors", TensorFile{});
  CHECK(read_safetensors(folder / "none.safetensors").tensors.empty());
}

TEST_CASE("every safetensors fixture can be read and written back without a change") {
  const test::ScratchFolder folder;
  std::size_t files = 0;
  for (const auto& item : std::filesystem::directory_iterator(test::fixtures())) {
    if (item.path().extension() != ".safetensors") continue;
    const TensorFile file = read_safetensors(item.path());
    CHECK_FALSE(file.tensors.empty());
    write_safetensors(folder / "copy.safetensors", file);
    const TensorFile copy = read_safetensors(folder / "copy.safetensors");
    REQUIRE(copy.tensors.size() == file.tensors.size());
    for (std::size_t i = 0; i < copy.tensors.size(); ++i) {
      REQUIRE(copy.tensors[i].first == file.tensors[i].first);
      REQUIRE(copy.tensors[i].second.data == file.tensors[i].second.data);
    }
    ++files;
  }
  CHECK(files > 0);
}

TEST_CASE("a damaged safetensors file is refused with the reason") {
  CHECK_THAT(error_for(""), Contains("shorter than the header"));
  CHECK_THAT(error_for("1234"), Contains("shorter than the header"));
  CHECK_THAT(error_for(std::string(8, '\xff') + "{}"), Contains("truncated or no safetensors file"));
  CHECK_THAT(error_for(file_with("{\"a\":", 0)), Contains("not valid JSON"));
  CHECK_THAT(error_for(file_with("\xff\xfe{}", 0)), Contains("not valid JSON"));
  CHECK_THAT(error_for(file_with("{\"a\": 1e999}", 0)), Contains("not valid JSON"));
  CHECK_THAT(error_for(file_with("[1]", 0)), Contains("not a JSON object"));
  CHECK_THAT(error_for(file_with(std::string(50000, '['), 0)), Contains("nested too deeply"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[0,4]") + "," + entry("a", "F32", "[1]", "[0,4]")), 4)),
             Contains("'a' is listed twice"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[2]", "[0,4]")), 4)), Contains("tensor 'a'") && Contains("does not fill its 4 bytes"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[4294967296,4294967296,4]", "[0,0]")), 0)), Contains("does not fill"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[-1]", "[0,4]")), 4)), Contains("not a whole number"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1.0]", "[0,4]")), 4)), Contains("not a whole number"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[18446744073709551615]", "[0,4]")), 4)), Contains("too large"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F8_E4M3", "[1]", "[0,1]")), 1)), Contains("F8_E4M3 is not supported"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[4,0]")), 4)), Contains("ends before it begins"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[0]")), 4)), Contains("not two numbers"));
  CHECK_THAT(error_for(file_with("{\"a\":{\"dtype\":\"F32\"}}", 0)), Contains("lacks dtype, shape or data_offsets"));
  CHECK_THAT(error_for(file_with("{\"a\":7}", 0)), Contains("lacks dtype, shape or data_offsets"));
  CHECK_THAT(error_for(file_with("{\"__metadata__\":{\"a\":7}}", 0)), Contains("not a string"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[1]", "[2,6]")), 6)),
             Contains("'b' overlaps"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[4,8]")), 8)), Contains("hole of 4 bytes before tensor 'a'"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[0,4]")), 3)), Contains("promises 4 bytes of data and 3 are there"));
  CHECK_THAT(error_for(file_with(object(entry("a", "F32", "[1]", "[0,4]")), 5)), Contains("1 bytes follow"));
  const test::ScratchFolder folder;
  CHECK_THAT(test::error_of([&] { read_safetensors(folder / "missing.safetensors"); }), Contains("missing.safetensors: No such file"));
  CHECK_THAT(test::error_of([&] { read_safetensors(folder.path()); }), Contains("it is not a file"));
}

TEST_CASE("a safetensors fixture with its header damaged byte by byte, or cut anywhere, is read or refused, never a crash") {
  const std::string good = read_file(test::fixtures() / "uvit_unpatchify.safetensors");
  const test::ScratchFolder folder;
  const std::filesystem::path path = folder / "x.safetensors";
  const auto try_read = [&](const std::string& content) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    REQUIRE(file);
    std::fwrite(content.data(), 1, content.size(), file);
    std::fclose(file);
    try {
      read_safetensors(path);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, good.data(), sizeof header_size);
  for (std::size_t i = 0; i < 8 + header_size; ++i)
    for (int bit : {0, 3, 6, 7}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      try_read(bad);
    }
  for (std::size_t size = 0; size < good.size(); size += 7) CHECK_FALSE(try_read(good.substr(0, size)));
  CHECK(try_read(good));
}

TEST_CASE("write_safetensors refuses what it cannot write and leaves no partial file") {
  const test::ScratchFolder folder;
  const std::filesystem::path path = folder / "a.safetensors";
  TensorFile file;
  file.tensors.emplace_back("a", tensor_of<float>(DType::f32, {1000}, std::vector<float>(1000)));
  {
    const test::FileSizeLimit limit(1000);
    CHECK_THAT(test::error_of([&] { write_safetensors(path, file); }), Contains(path.string() + ": File too large"));
  }
  CHECK(folder.entries() == 0);
  CHECK_THAT(test::error_of([&] { write_safetensors(folder / "none/a.safetensors", file); }), Contains("none/a.safetensors: No such file"));
  file.tensors.emplace_back("a", file.tensors[0].second);
  CHECK_THAT(test::error_of([&] { write_safetensors(path, file); }), Contains("'a' is reserved or given twice"));
  file.tensors[1] = {"b", HostTensor{DType::f32, {2}, {}}};
  CHECK_THAT(test::error_of([&] { write_safetensors(path, file); }), Contains("tensor 'b': 0 bytes"));
  file.tensors[1] = {"\xff", file.tensors[0].second};
  CHECK_THAT(test::error_of([&] { write_safetensors(path, file); }), Contains("not valid UTF-8"));
  CHECK(folder.entries() == 0);
}
