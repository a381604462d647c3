// What PyTorch, NumPy and TensorBoard write and read, against this library. Runs where tools/setup.sh made a .venv with them, else says that it did
// not.
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>

#include "io/event_file.h"
#include "io/npz.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;
using Values = std::vector<double>;

namespace {

const std::filesystem::path kSource = UVIT_SOURCE_DIR;

bool have_python() {
  static const bool found = [] {
    const std::string python = (kSource / ".venv/bin/python").string();
    return std::filesystem::exists(python) && std::system(fmt::format("'{}' -c 'import torch, numpy, tensorboard' 2>/dev/null", python).c_str()) == 0;
  }();
  if (!found) WARN("skipped: .venv/bin/python with torch, numpy and tensorboard was not found");
  return found;
}

/// Runs one function of read_with_python.py; its message goes to the test's own output.
int python(const std::string& function, const std::filesystem::path& path) {
  return std::system(fmt::format("'{}' '{}' {} '{}'", (kSource / ".venv/bin/python").string(), (kSource / "tests/io/read_with_python.py").string(),
                                 function, path.string())
                         .c_str());
}

/// Element i is i + place, or its lowest bit for booleans.
template <class T>
HostTensor counted(DType dtype, std::vector<std::int64_t> shape, std::size_t place, T (*convert)(std::size_t)) {
  HostTensor tensor{dtype, std::move(shape), {}};
  const auto count = static_cast<std::size_t>(tensor.numel());
  tensor.data.resize(count * sizeof(T));
  for (std::size_t i = 0; i < count; ++i) {
    const T value = convert(i + place);
    std::memcpy(tensor.data.data() + i * sizeof(T), &value, sizeof(T));
  }
  return tensor;
}

template <class T>
T plain(std::size_t value) {
  return static_cast<T>(value);
}
std::uint8_t flag(std::size_t value) { return value % 2; }
/// 0 to 11 in float16 and bfloat16, from their definitions.
std::uint16_t half(std::size_t value) {
  if (value == 0) return 0;
  int exponent = 0;
  while ((value >> (exponent + 1)) != 0) ++exponent;
  return static_cast<std::uint16_t>((exponent + 15) << 10 | ((value << 10 >> exponent) & 1023));
}
std::uint16_t brain(std::size_t value) {
  const auto as_float = static_cast<float>(value);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &as_float, 4);
  return static_cast<std::uint16_t>(bits >> 16);
}

TensorFile counted_file(bool with_bfloat16) {
  TensorFile file;
  const auto add = [&](auto make) { file.tensors.push_back(make(file.tensors.size())); };
  const std::vector<std::int64_t> shape = {2, 3};
  add([&](std::size_t k) { return std::pair("F64", counted<double>(DType::f64, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("F32", counted<float>(DType::f32, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("F16", counted<std::uint16_t>(DType::f16, shape, k, half)); });
  if (with_bfloat16) add([&](std::size_t k) { return std::pair("BF16", counted<std::uint16_t>(DType::bf16, shape, k, brain)); });
  add([&](std::size_t k) { return std::pair("I64", counted<std::int64_t>(DType::i64, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("I32", counted<std::int32_t>(DType::i32, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("I16", counted<std::int16_t>(DType::i16, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("I8", counted<std::int8_t>(DType::i8, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("U8", counted<std::uint8_t>(DType::u8, shape, k, plain)); });
  add([&](std::size_t k) { return std::pair("BOOL", counted<std::uint8_t>(DType::boolean, shape, k, flag)); });
  add([&](std::size_t k) { return std::pair("scalar", counted<float>(DType::f32, {}, k, plain)); });
  add([&](std::size_t k) { return std::pair("empty", counted<float>(DType::f32, {0, 3}, k, plain)); });
  return file;
}

Values numbers(const PthValue& value) { return std::get<HostTensor>(value.value).to_double(); }

Values range(int first, int last, int step = 1) {
  Values values;
  for (int i = first; i < last; i += step) values.push_back(i);
  return values;
}

}  // namespace

TEST_CASE("torch.load(weights_only=True) reads what write_pth_state_dict wrote", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  write_pth_state_dict(folder / "a.pth", counted_file(true));
  CHECK(python("read_pth", folder / "a.pth") == 0);
}

TEST_CASE("safetensors.torch reads what write_safetensors wrote, and we what it writes", "[python]") {
  if (!have_python()) return;
  if (std::system(fmt::format("'{}' -c 'import safetensors' 2>/dev/null", (kSource / ".venv/bin/python").string()).c_str()) != 0) {
    WARN("skipped: the Python package safetensors was not found in .venv");
    return;
  }
  const test::ScratchFolder folder;
  write_safetensors(folder / "a.safetensors", counted_file(true));
  CHECK(python("read_safetensors", folder / "a.safetensors") == 0);
  const TensorFile copy = read_safetensors(folder / "a.safetensors.copy");
  for (const auto& [name, tensor] : counted_file(true).tensors) {
    INFO(name);
    CHECK(copy.at(name).dtype == tensor.dtype);
    CHECK(copy.at(name).shape == tensor.shape);
    CHECK((copy.at(name).data == tensor.data));
  }
}

TEST_CASE("torch.load(weights_only=True) reads the nested values that write_pth wrote, and we read them back", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  const auto text = [](const char* value) { return PthValue{std::string(value)}; };
  PthValue::Dict inner = {{PthValue{std::int64_t{7}}, {PthValue::List{{true}, {}, {0.1}, text("\u00fc")}}}};
  PthValue::Dict value = {{text("step"), {std::int64_t{20}}},
                          {text("large"), {-(std::int64_t{1} << 40)}},
                          {text("inner"), {std::move(inner)}},
                          {text("tensor"), {counted<float>(DType::f32, {2, 3}, 4, plain)}}};
  write_pth(folder / "values.pth", {value});
  CHECK(python("read_values", folder / "values.pth") == 0);
  const PthValue back = read_pth(folder / "values.pth");
  CHECK(std::get<std::int64_t>(back.at("large").value) == -(std::int64_t{1} << 40));
  const auto& list = std::get<PthValue::List>(std::get<PthValue::Dict>(back.at("inner").value).front().second.value);
  CHECK(std::get<bool>(list[0].value));
  CHECK(std::holds_alternative<std::monostate>(list[1].value));
  CHECK(std::get<double>(list[2].value) == 0.1);
  CHECK(numbers(back.at("tensor")) == range(4, 10));
}

TEST_CASE("numpy.load reads what write_npz wrote", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  write_npz(folder / "a.npz", counted_file(false));
  CHECK(python("read_npz", folder / "a.npz") == 0);
}

TEST_CASE("read_npz reads what NumPy wrote, stored and deflated", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  REQUIRE(python("write_npz", folder.path()) == 0);
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const TensorFile file = read_npz(folder / name);
    CHECK(file.tensors.size() == 6);
    CHECK(file.at("f64").to_double() == range(0, 6));
    CHECK(file.at("f16_fortran").to_double() == range(1, 7));
    CHECK(file.at("u8_cube_fortran").to_double() == range(2, 26));
    CHECK(file.at("u8_cube_fortran").shape == std::vector<std::int64_t>{2, 3, 4});
    CHECK(file.at("scalar").to_double() == Values{3});
    CHECK(file.at("flags").to_double() == Values{0, 1, 0, 1, 0});
    CHECK(file.at("empty").shape == std::vector<std::int64_t>{0, 2});
  }
}

TEST_CASE("read_pth reads what PyTorch wrote: views, parameters, plain values, every pickle protocol", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  REQUIRE(python("write_pth", folder.path()) == 0);
  for (int protocol : {2, 3, 4, 5}) {
    CAPTURE(protocol);
    const PthValue value = read_pth(folder / fmt::format("protocol{}.pth", protocol));
    CHECK(numbers(value.at("matrix")) == range(0, 24));
    const Values transposed = numbers(value.at("transposed"));
    CHECK(Values(transposed.begin(), transposed.begin() + 5) == Values{0, 6, 12, 18, 1});
    CHECK(numbers(value.at("row")) == range(12, 18));
    CHECK(numbers(value.at("every_third")) == range(1, 24, 3));
    CHECK(numbers(value.at("expanded")) == Values{5, 5, 5, 5});
    CHECK(numbers(value.at("complex")) == Values{0, 2, 1, 3});
    CHECK(std::get<HostTensor>(value.at("half").value).dtype == DType::f16);
    CHECK(numbers(value.at("half")) == Values{0, 1, 2});
    CHECK(std::get<HostTensor>(value.at("brain").value).dtype == DType::bf16);
    CHECK(numbers(value.at("brain")) == Values{0, 1, 2});
    CHECK(numbers(value.at("flags")) == Values{0, 0, 1});
    CHECK(numbers(value.at("parameter")) == Values{0, 1});
    CHECK(numbers(value.at("storage")) == Values{1, 2, 3});
    CHECK(numbers(value.at("module").at("weight")) == range(0, 6));
    CHECK(std::get<PthValue::List>(value.at("size").value).size() == 2);
    const PthValue& plain_values = value.at("plain");
    CHECK(std::holds_alternative<std::monostate>(plain_values.at("none").value));
    CHECK(std::get<bool>(plain_values.at("yes").value));
    CHECK(std::get<std::int64_t>(plain_values.at("int").value) == -(std::int64_t{1} << 40));
    CHECK(std::get<double>(plain_values.at("float").value) == 0.1);
    CHECK(std::get<std::string>(plain_values.at("text").value) == "\u00fc");
    CHECK(std::get<std::string>(plain_values.at("bytes").value) == std::string("\x00\xff", 2));
    CHECK(std::get<std::int64_t>(std::get<PthValue::Dict>(plain_values.value).back().first.value) == 7);
  }
  CHECK(read_pth_state_dict(folder / "nested.pth").at("bias").to_double() == Values{6, 7});
  CHECK_THAT(test::error_of([&] { read_pth(folder / "module.pth"); }), Contains("torch.nn.modules.linear.Linear"));
  CHECK_THAT(test::error_of([&] { read_pth(folder / "legacy.pth"); }), Contains("no zip file"));
}

TEST_CASE("TensorBoard reads scalars, images, text, histograms and settings back from an event file", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  {
    EventFile file(folder.path());
    file.add_scalar("train/loss", 0, 0.5);
    file.add_scalar("train/loss", 300, 0.25);
    file.add_scalar("train/loss", std::int64_t{1} << 40, -1.5);
    std::vector<std::byte> image(256);
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::byte>(i);
    file.add_image("samples", 7, image, 2, 3, 1);
    file.add_text("config", 9, "[model]\ndepth = 4 \u00fc");
    file.add_histogram("weights", 5, {-1, 3, 6, 4.5, 20.25, {-0.5, 0.5, 3}, {1, 2, 3}});
    file.add_hparams("run \u00fc", {{"optimizer.lr", 0.002}, {"data.flip", true}, {"data.off", false}, {"model.mlp", "gelu"}, {"empty", ""}}, {"loss/eval"});
    file.end_hparams(true);
  }
  CHECK(python("read_events", folder.path()) == 0);
}

TEST_CASE("TensorBoard leaves out what a resumed run writes again, though the clock was set back between", "[python]") {
  if (!have_python()) return;
  const test::ScratchFolder folder;
  {
    EventFile file(folder.path());
    for (std::int64_t step = 1; step <= 8; ++step) file.add_scalar("train/loss", step, static_cast<double>(step));
  }
  // As a run from tomorrow: the clock of now lies before its times.
  const auto names = std::filesystem::directory_iterator(folder.path());
  std::filesystem::rename(names->path(), folder / "events.out.tfevents.9000000000.host.1");
  {
    EventFile resumed(folder.path(), 5);
    CHECK(resumed.path().filename().string().starts_with("events.out.tfevents.9000000001."));
    for (std::int64_t step = 5; step <= 10; ++step) resumed.add_scalar("train/loss", step, static_cast<double>(100 + step));
    resumed.purge_from(8);
    resumed.add_scalar("train/loss", 8, 208);
  }
  CHECK(python("read_purged_events", folder.path()) == 0);
}
