#include "data/cifar_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "data/packed_file.h"

namespace uvit {

namespace fs = std::filesystem;

RawImages read_cifar(const fs::path& folder, const std::string& archive_folder, const std::vector<std::string>& files, std::size_t label_bytes,
                     const std::string& advice) {
  constexpr std::size_t kPixels = 3 * 32 * 32;
  const std::size_t record = label_bytes + kPixels;
  const fs::path root = fs::exists(folder / archive_folder) ? folder / archive_folder : folder;
  RawImages raw{3, 32, 32, {}, {}, {}, 0, {}};
  std::vector<std::pair<std::int64_t, std::string>> starts;  // index of each file's first image, its name
  for (const std::string& name : files) {
    const fs::path path = root / name;
    if (!fs::exists(path)) throw Error(fmt::format("no file {}: {}", path.string(), advice));
    const PackedFile file = read_packed_file(path);
    const std::size_t count = (file.bytes.size() + record - 1) / record;
    if (count == 0 || count * record != file.bytes.size() || !file.damage.empty()) {
      throw Error(fmt::format("{} is truncated: expected {} bytes ({} records of {}), found {}", path.string(),
                              std::max<std::size_t>(count, 1) * record, std::max<std::size_t>(count, 1), record, file.bytes.size()));
    }
    starts.emplace_back(static_cast<std::int64_t>(raw.labels.size()), path.string());
    for (std::size_t i = 0; i < count; ++i) {
      const auto begin = file.bytes.begin() + static_cast<std::ptrdiff_t>(i * record);
      raw.labels.push_back(begin[static_cast<std::ptrdiff_t>(label_bytes) - 1]);
      raw.pixels.insert(raw.pixels.end(), begin + static_cast<std::ptrdiff_t>(label_bytes), begin + static_cast<std::ptrdiff_t>(record));
    }
  }
  raw.describe = [starts](std::int64_t index) {
    const auto next = std::upper_bound(starts.begin(), starts.end(), index, [](std::int64_t i, const auto& start) { return i < start.first; });
    return fmt::format("{}[{}]", std::prev(next)->second, index - std::prev(next)->first);
  };
  return raw;
}

}  // namespace uvit
