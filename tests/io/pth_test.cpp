#include "io/pth.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <random>

#include "core/atomic_file.h"
#include "core/hash.h"
#include "io/pickle.h"
#include "io/safetensors.h"
#include "io/zip_archive.h"
#include "support/compare.h"
#include "support/fixtures.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;
using namespace std::string_literals;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A torch.save file around a pickle written by hand. Storage "0" holds the floats 0, 1, ..., 11.
std::string file_around(const std::filesystem::path& path, const std::string& pickle, const std::string& byteorder = "little") {
  std::vector<float> values(12);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::vector<ZipMember> members = {
      {"a/data.pkl", bytes_of(pickle)}, {"a/byteorder", bytes_of(byteorder)}, {"a/data/0", std::as_bytes(std::span(values))}};
  write_zip(path, members, false);
  return path.string();
}

PthValue load(const std::string& pickle) {
  const test::ScratchFolder folder;
  return read_pth(file_around(folder / "x.pth", pickle));
}

std::string error_of_pickle(const std::string& pickle) {
  return test::error_of([&] { load(pickle); });
}

std::string text(const std::string& value) {
  std::string out = "X";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(value.size() >> (8 * i));
  return out + value;
}

std::string integer(std::int64_t value) {
  std::string out = "\x8a\x08";
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

std::string tuple(const std::vector<std::int64_t>& values) {
  std::string out = "(";
  for (std::int64_t value : values) out += integer(value);
  return out + "t";
}

std::string storage(const std::string& type = "torch\nFloatStorage", std::int64_t numel = 12, const std::string& key = "0") {
  return fmt::format("({}c{}\n{}{}{}tQ", text("storage"), type, text(key), text("cpu"), integer(numel));
}

std::string tensor(const std::string& from, std::int64_t offset, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + from + integer(offset) + tuple(shape) + tuple(strides) + "\x89" + "ccollections\nOrderedDict\n)R" +
         "tR";
}

std::vector<double> values_of(const PthValue& value) { return std::get<HostTensor>(value.value).to_double(); }

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

std::vector<std::filesystem::path> pth_fixtures() {
  std::vector<std::filesystem::path> paths;
  for (const auto& item : std::filesystem::recursive_directory_iterator(test::fixtures()))
    if (item.path().extension() == ".pth") paths.push_back(item.path());
  return paths;
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
