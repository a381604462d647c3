#include "io/pth.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>

#include "core/atomic_file.h"
#include "io/safetensors.h"
#include "tests/io/pth_case.h"
#include "support/fixtures.h"
#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;
using Catch::Contains;
using namespace std::string_literals;

namespace {

void require_equal(const TensorFile& a, const TensorFile& b) {
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (const auto& [name, tensor_a] : a.tensors) {
    CAPTURE(name);
    const HostTensor& tensor_b = b.at(name);
    REQUIRE(tensor_a.dtype == tensor_b.dtype);
    REQUIRE(tensor_a.shape == tensor_b.shape);
    REQUIRE((tensor_a.data == tensor_b.data));
  }
}

}  // namespace

TEST_CASE("every official state dict equals its safetensors twin bit for bit, and survives writing") {
  const test::ScratchFolder folder;
  std::size_t pairs = 0;
  for (const std::filesystem::path& path : pth_fixtures()) {
    const std::string name = path.filename().string();
    const std::size_t end = name.find("_nnet.pth");
    if (end == std::string::npos) continue;
    CAPTURE(name);
    const TensorFile expected = read_safetensors(path.parent_path() / (name.substr(0, end) + "_state.safetensors"));
    const TensorFile state = read_pth_state_dict(path);
    require_equal(state, expected);
    write_pth_state_dict(folder / "copy.pth", state);
    require_equal(read_pth_state_dict(folder / "copy.pth"), expected);
    ++pairs;
  }
  CHECK(pairs > 0);
}

TEST_CASE("a whole official checkpoint is read: network, EMA, optimizer, schedule, step") {
  const std::filesystem::path folder = test::fixtures() / "optim_default_20.ckpt";
  CHECK(std::get<std::int64_t>(read_pth(folder / "step.pth").value) == 20);
  const TensorFile expected = read_safetensors(test::fixtures() / "optim_default.safetensors");
  const TensorFile network = read_pth_state_dict(folder / "nnet.pth"), ema = read_pth_state_dict(folder / "nnet_ema.pth");
  for (const auto& [name, value] : network.tensors) {
    REQUIRE((value.data == expected.at("final." + name).data));
    REQUIRE((ema.at(name).data == expected.at("ema." + name).data));
  }
  const PthValue optimizer = read_pth(folder / "optimizer.pth");
  const auto& group = std::get<PthValue::List>(optimizer.at("param_groups").value).at(0);
  CHECK(std::get<PthValue::List>(group.at("params").value).size() == network.tensors.size());
  CHECK(std::get<PthValue::List>(group.at("betas").value).size() == 2);
  const auto& state = std::get<PthValue::Dict>(optimizer.at("state").value);
  REQUIRE(state.size() == network.tensors.size());
  CHECK(std::get<std::int64_t>(state[0].first.value) == 0);
  CHECK(std::get<HostTensor>(state[0].second.at("exp_avg").value).shape == network.tensors[0].second.shape);
  CHECK(values_of(state[0].second.at("step")) == std::vector<double>{20});
  CHECK(std::get<std::int64_t>(read_pth(folder / "lr_scheduler.pth").at("last_epoch").value) == 20);
  CHECK_THAT(test::error_of([&] { read_pth_state_dict(folder / "optimizer.pth"); }), Contains("optimizer.pth") && Contains("'state' is no tensor"));
  CHECK_THAT(test::error_of([&] { read_pth_state_dict(folder / "step.pth"); }), Contains("holds no dict of tensors"));
}

TEST_CASE("a state dict below 'model', with complex tensors as pairs of numbers") {
  std::size_t files = 0;
  for (const std::filesystem::path& path : pth_fixtures()) {
    const std::string name = path.filename().string();
    const std::size_t end = name.find("_checkpoint.pth");
    if (end == std::string::npos) continue;
    const TensorFile state = read_pth_state_dict(path);
    for (const auto& [key, expected] : read_safetensors(path.parent_path() / (name.substr(0, end) + "_state.safetensors")).tensors) {
      CAPTURE(name, key);
      const bool real = key.ends_with("_real"), imaginary = key.ends_with("_imag");
      if (!real && !imaginary) {
        REQUIRE((state.at(key).data == expected.data));
        continue;
      }
      const HostTensor& both = state.at(key.substr(0, key.size() - 5));
      CHECK(both.shape.back() == 2);
      const std::vector<double> all = both.to_double(), part = expected.to_double();
      REQUIRE(all.size() == 2 * part.size());
      for (std::size_t i = 0; i < part.size(); ++i) REQUIRE(all[2 * i + (imaginary ? 1 : 0)] == part[i]);
    }
    ++files;
  }
  CHECK(files > 0);
}

TEST_CASE("plain values of every opcode") {
  CHECK(std::holds_alternative<std::monostate>(load("\x80\x02N.").value));
  CHECK(std::get<bool>(load("\x80\x02\x88.").value));
  CHECK_FALSE(std::get<bool>(load("\x80\x02\x89.").value));
  CHECK(std::get<std::int64_t>(load("\x80\x02K\xff.").value) == 255);
  CHECK(std::get<std::int64_t>(load("\x80\x02M\xff\xff.").value) == 65535);
  CHECK(std::get<std::int64_t>(load("\x80\x02J\xfe\xff\xff\xff.").value) == -2);
  CHECK(std::get<std::int64_t>(load("\x80\x02\x8a\x00."s).value) == 0);
  CHECK(std::get<std::int64_t>(load("\x80\x02\x8a\x01\x80.").value) == -128);
  CHECK(std::get<std::int64_t>(load("\x80\x02\x8a\x02\xff\x7f.").value) == 32767);
  CHECK(std::get<std::int64_t>(load("\x80\x02" + integer(std::numeric_limits<std::int64_t>::min()) + ".").value) ==
        std::numeric_limits<std::int64_t>::min());
  CHECK(std::get<double>(load("\x80\x02G\xc0\x04\x00\x00\x00\x00\x00\x00."s).value) == -2.5);
  CHECK(std::get<std::string>(load("\x80\x02" + text("h\u00e9") + ".").value) == "h\u00e9");
  CHECK(std::get<std::string>(load("\x80\x02"
                                   "c_codecs\nencode\n" +
                                   text("a\u00ff") + text("latin1") + "\x86R.")
                                  .value) == "a\xff");
  CHECK(std::get<std::string>(load("\x80\x02"
                                   "c__builtin__\nbytes\n)R.")
                                  .value)
            .empty());
  CHECK(std::get<std::string>(load("\x80\x03"
                                   "C\x02"
                                   "ab.")
                                  .value) == "ab");
  CHECK(std::get<PthValue::List>(load("\x80\x02](K\x01K\x02"
                                      "eK\x03"
                                      "a.")
                                     .value)
            .size() == 3);
  CHECK(std::get<PthValue::List>(load("\x80\x02"
                                      "ctorch\nSize\n" +
                                      tuple({2, 3}) + "\x85R.")
                                     .value)
            .size() == 2);
  CHECK(std::get<std::int64_t>(load("\x80\x02}" + text("k") + "K\x01s" + text("k") + "K\x02s.").at("k").value) == 2);  // set again: the later value
  const PthValue ordered = load(
      "\x80\x02"
      "ccollections\nOrderedDict\n](" +
      text("k") +
      "K\x07\x86"
      "e\x85R}" +
      text("_metadata") + "Nsb.");
  CHECK(std::get<std::int64_t>(ordered.at("k").value) == 7);
  const PthValue protocol4 = load("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01k\x94K\x05s."s);
  CHECK(std::get<std::int64_t>(protocol4.at("k").value) == 5);
  CHECK_THAT(test::error_of([&] { protocol4.at("key"); }), Contains("has no 'key'"));
  CHECK_THAT(test::error_of([&] { protocol4.at("k").at("x"); }), Contains("no dict where 'x'"));
}

TEST_CASE("views: strides, offsets, shared storages, no elements") {
  using Values = std::vector<double>;
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 0, {3, 4}, {4, 1}) + ".")) == Values{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 0, {4, 3}, {1, 4}) + ".")) == Values{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 5, {2, 2}, {4, 2}) + ".")) == Values{5, 7, 9, 11});
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 3, {2, 3}, {0, 1}) + ".")) == Values{3, 4, 5, 3, 4, 5});  // expand()
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 0, {3, 2}, {1, 1}) + ".")) == Values{0, 1, 1, 2, 2, 3});  // unfold()
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 7, {}, {}) + ".")) == Values{7});
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 12, {0, 4}, {4, 1}) + ".")).empty());
  CHECK(values_of(load("\x80\x02" + tensor(storage(), 4, {1, 2}, {-0, 3}) + ".")) == Values{4, 7});
  CHECK(values_of(load("\x80\x02"
                       "ctorch._utils\n_rebuild_parameter\n(" +
                       tensor(storage(), 1, {2}, {1}) +
                       "\x88"
                       "ccollections\nOrderedDict\n)RtR.")) == Values{1, 2});
  const PthValue complex = load("\x80\x02" + tensor(storage("torch\nComplexFloatStorage", 6), 0, {2, 2}, {1, 2}) + ".");
  CHECK(std::get<HostTensor>(complex.value).shape == std::vector<std::int64_t>{2, 2, 2});
  CHECK(values_of(complex) == Values{0, 1, 4, 5, 2, 3, 6, 7});
  const PthValue untyped = load("\x80\x02" + storage("torch.storage\nUntypedStorage", 48) + ".");
  CHECK(std::get<HostTensor>(untyped.value).data.size() == 48);
  const std::vector<std::pair<std::string, DType>> types = {{"Double", DType::f64}, {"Half", DType::f16}, {"BFloat16", DType::bf16},
                                                            {"Long", DType::i64},   {"Int", DType::i32},  {"Short", DType::i16},
                                                            {"Char", DType::i8},    {"Byte", DType::u8},  {"Bool", DType::boolean}};
  for (const auto& [name, dtype] : types) {
    const PthValue value = load("\x80\x02" + tensor(storage("torch\n" + name + "Storage", 6), 0, {6}, {1}) + ".");
    CHECK(std::get<HostTensor>(value.value).dtype == dtype);
    CHECK(std::get<HostTensor>(value.value).data.size() == 6 * size_of(dtype));
  }
}

TEST_CASE("write_pth_state_dict: every dtype, equal bytes each time, no partial file") {
  TensorFile file;
  for (DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i16, DType::i8, DType::u8, DType::boolean})
    file.tensors.emplace_back(std::string(name_of(dtype)), HostTensor{dtype, {2, 3}, std::vector<std::byte>(6 * size_of(dtype), std::byte{1})});
  file.tensors.emplace_back("scalar \u00fc", HostTensor{DType::f32, {}, std::vector<std::byte>(4)});
  file.tensors.emplace_back("empty", HostTensor{DType::f32, {0, 3}, {}});
  const test::ScratchFolder folder;
  write_pth_state_dict(folder / "a.pth", file);
  require_equal(read_pth_state_dict(folder / "a.pth"), file);
  write_pth_state_dict(folder / "b.pth", file);
  CHECK(read_file(folder / "a.pth") == read_file(folder / "b.pth"));

  TensorFile large;
  large.tensors.emplace_back("a", HostTensor{DType::u8, {100000}, std::vector<std::byte>(100000)});
  {
    const test::FileSizeLimit limit(50000);
    CHECK_THAT(test::error_of([&] { write_pth_state_dict(folder / "c.pth", large); }),
               Contains((folder / "c.pth").string()) && Contains("File too large"));
  }
  CHECK(folder.entries() == 2);
  large.tensors.push_back(large.tensors[0]);
  CHECK_THAT(test::error_of([&] { write_pth_state_dict(folder / "c.pth", large); }), Contains("'a' is given twice"));
  large.tensors[1] = {"b", HostTensor{DType::f32, {2}, {}}};
  CHECK_THAT(test::error_of([&] { write_pth_state_dict(folder / "c.pth", large); }), Contains("tensor 'b'"));
  CHECK_THAT(test::error_of([&] { write_pth_state_dict(folder / "none/c.pth", file); }), Contains("none/c.pth"));
  CHECK(folder.entries() == 2);
}
