#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/pth.h"
#include "io/zip_archive.h"
#include "support/fixtures.h"
#include "support/scratch.h"

/// Files of torch.save made by hand, opcode by opcode.
namespace uvit::test {

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A torch.save file around a pickle written by hand. Storage "0" holds the floats 0, 1, ..., 11.
inline std::string file_around(const std::filesystem::path& path, const std::string& pickle, const std::string& byteorder = "little") {
  std::vector<float> values(12);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::vector<ZipMember> members = {
      {"a/data.pkl", bytes_of(pickle)}, {"a/byteorder", bytes_of(byteorder)}, {"a/data/0", std::as_bytes(std::span(values))}};
  write_zip(path, members, false);
  return path.string();
}

inline PthValue load(const std::string& pickle) {
  const ScratchFolder folder;
  return read_pth(file_around(folder / "x.pth", pickle));
}

inline std::string error_of_pickle(const std::string& pickle) {
  return error_of([&] { load(pickle); });
}

inline std::string text(const std::string& value) {
  std::string out = "X";
  for (int i = 0; i < 4; ++i) out += static_cast<char>(value.size() >> (8 * i));
  return out + value;
}

inline std::string integer(std::int64_t value) {
  std::string out = "\x8a\x08";
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

inline std::string tuple(const std::vector<std::int64_t>& values) {
  std::string out = "(";
  for (std::int64_t value : values) out += integer(value);
  return out + "t";
}

inline std::string storage(const std::string& type = "torch\nFloatStorage", std::int64_t numel = 12, const std::string& key = "0") {
  return fmt::format("({}c{}\n{}{}{}tQ", text("storage"), type, text(key), text("cpu"), integer(numel));
}

inline std::string tensor(const std::string& from, std::int64_t offset, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + from + integer(offset) + tuple(shape) + tuple(strides) + "\x89" + "ccollections\nOrderedDict\n)R" +
         "tR";
}

inline std::vector<double> values_of(const PthValue& value) { return std::get<HostTensor>(value.value).to_double(); }

inline std::vector<std::filesystem::path> pth_fixtures() {
  std::vector<std::filesystem::path> paths;
  for (const auto& item : std::filesystem::recursive_directory_iterator(fixtures()))
    if (item.path().extension() == ".pth") paths.push_back(item.path());
  return paths;
}

}  // namespace uvit::test
