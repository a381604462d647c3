#include "data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"

namespace uvit {
namespace {

/// Pixel -> [-1, 1], one rounding a value.
const std::array<float, 256>& pixel_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table{};
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(static_cast<double>(i) / 127.5 - 1.0);
    return table;
  }();
  return values;
}

}  // namespace

void Dataset::read_values(std::int64_t index, const SampleDraw& draw, std::span<float> values) const {
  std::vector<std::uint8_t> bytes(values.size());
  read(index, bytes);
  if (draw.flip)
    for (auto row = bytes.begin(); row != bytes.end(); row += width()) std::reverse(row, row + width());
  std::transform(bytes.begin(), bytes.end(), values.begin(), [&table = pixel_values()](std::uint8_t pixel) { return table[pixel]; });
}

void Dataset::read_context(std::int64_t index, const SampleDraw&, std::span<float>) const {
  throw Error(fmt::format("{} has no caption", describe(index)));
}

void Dataset::read_empty_context(std::span<float>) const { throw Error("the dataset has no context of the empty text"); }

}  // namespace uvit
