#include "data/idx_file.h"

#include <fmt/format.h>

#include <array>

#include "core/error.h"
#include "data/packed_file.h"

namespace uvit {
namespace {

namespace fs = std::filesystem;

struct IdxArray {
  fs::path path;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> data;
};

fs::path find_idx(const fs::path& folder, const std::string& stem, int dimensions, const std::string& advice) {
  for (const char* separator : {"-", "."}) {
    for (const char* ending : {"", ".gz"}) {
      const fs::path path = folder / fmt::format("{}{}idx{}-ubyte{}", stem, separator, dimensions, ending);
      if (fs::exists(path)) return path;
    }
  }
  throw Error(fmt::format("no file {}/{}-idx{}-ubyte (or .gz): {}", folder.string(), stem, dimensions, advice));
}

IdxArray read_idx(const fs::path& path, int dimensions) {
  PackedFile file = read_packed_file(path);
  const auto reason = [&] { return file.damage.empty() ? std::string() : fmt::format(" ({})", file.damage); };
  const std::size_t header = 4 + 4 * static_cast<std::size_t>(dimensions);
  const auto word = [&](std::size_t at) {
    const std::uint8_t* p = file.bytes.data() + at;
    return static_cast<std::uint32_t>(p[0]) << 24 | static_cast<std::uint32_t>(p[1]) << 16 | static_cast<std::uint32_t>(p[2]) << 8 | p[3];
  };
  const std::uint32_t magic = 0x0800u + static_cast<std::uint32_t>(dimensions);
  if (file.bytes.size() >= 4 && word(0) != magic) {
    throw Error(fmt::format("{} is no IDX file of {} dimension(s) of bytes: it starts with 0x{:08x}, expected 0x{:08x}", path.string(), dimensions,
                            word(0), magic));
  }
  if (file.bytes.size() < header) {
    throw Error(fmt::format("{} is truncated: expected at least {} bytes, found {}{}", path.string(), header, file.bytes.size(), reason()));
  }
  IdxArray array{path, {}, {}};
  unsigned __int128 count = 1;  // three 32-bit lengths of a damaged header overflow 64 bits
  for (int d = 0; d < dimensions; ++d) {
    array.shape.push_back(word(4 + 4 * static_cast<std::size_t>(d)));
    count *= static_cast<unsigned __int128>(array.shape.back());
  }
  if (count >> 62) throw Error(fmt::format("{} is damaged: its header names an impossible size", path.string()));
  const std::size_t expected = header + static_cast<std::size_t>(count);
  if (file.bytes.size() != expected || !file.damage.empty()) {
    const char* what = file.bytes.size() > expected ? "holds too much" : "is truncated";
    throw Error(fmt::format("{} {}: expected {} bytes, found {}{}", path.string(), what, expected, file.bytes.size(), reason()));
  }
  file.bytes.erase(file.bytes.begin(), file.bytes.begin() + static_cast<std::ptrdiff_t>(header));
  array.data = std::move(file.bytes);
  return array;
}

}  // namespace

RawImages read_idx_split(const fs::path& folder, Split split, const std::string& advice) {
  const std::string prefix = split == Split::train ? "train" : "t10k";
  const fs::path images_path = find_idx(folder, prefix + "-images", 3, advice), labels_path = find_idx(folder, prefix + "-labels", 1, advice);
  IdxArray images = read_idx(images_path, 3), labels = read_idx(labels_path, 1);
  if (images.shape[0] != labels.shape[0]) {
    throw Error(
        fmt::format("{} holds {} images but {} holds {} labels", images_path.string(), images.shape[0], labels_path.string(), labels.shape[0]));
  }
  if (images.shape[1] == 0 || images.shape[2] == 0) throw Error(fmt::format("{} holds images without pixels", images_path.string()));
  RawImages raw{1, images.shape[1], images.shape[2], std::move(images.data), std::move(labels.data), {}, 0, {}};
  raw.describe = [name = images_path.string()](std::int64_t index) { return fmt::format("{}[{}]", name, index); };
  return raw;
}

}  // namespace uvit
