#include "data/area_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

// Compiled without contraction: a fused multiply-add would round otherwise than OpenCV does.

namespace uvit {
namespace {

using Float4 = float __attribute__((vector_size(16)));  // red, green, blue, and what follows them, which is dropped

constexpr int kChannels = 3;

/// The source positions that one target position covers, and their shares.
struct Span {
  int first = 0;
  std::vector<float> weights;
};

std::vector<Span> spans_of(int source, int target) {
  constexpr double kLeast = 1e-3;  // a share of a pixel below this does not count
  const double factor = 1.0 / (static_cast<double>(target) / source);
  std::vector<Span> spans(static_cast<std::size_t>(target));
  for (int i = 0; i < target; ++i) {
    const double begin = i * factor, end = begin + factor, length = std::min(factor, source - begin);
    const int whole_end = std::min(static_cast<int>(std::floor(end)), source - 1), whole_begin = std::min(static_cast<int>(std::ceil(begin)), whole_end);
    Span& span = spans[static_cast<std::size_t>(i)];
    span.first = whole_begin;
    if (whole_begin - begin > kLeast) {
      span.first = whole_begin - 1;
      span.weights.push_back(static_cast<float>((whole_begin - begin) / length));
    }
    span.weights.insert(span.weights.end(), static_cast<std::size_t>(whole_end - whole_begin), static_cast<float>(1.0 / length));
    if (end - whole_end > kLeast) span.weights.push_back(static_cast<float>(std::min(std::min(end - whole_end, 1.0), length) / length));
  }
  return spans;
}

/// One row of the picture, shrunk. @param row  its values and at least one more
void shrink_row(const float* row, const std::vector<Span>& columns, Float4* out) {
  for (const Span& span : columns) {
    const float* pixel = row + span.first * kChannels;
    Float4 sum = {};
    for (const float weight : span.weights) {
      Float4 values;
      std::memcpy(&values, pixel, sizeof values);
      sum += values * weight;
      pixel += kChannels;
    }
    *out++ = sum;
  }
}

}  // namespace

void resize_area_rgb(const std::uint8_t* pixels, int height, int width, std::uint8_t* out, int out_height, int out_width) {
  const std::size_t row_values = static_cast<std::size_t>(width) * kChannels, columns = static_cast<std::size_t>(out_width);
  const std::vector<Span> across = spans_of(width, out_width), down = spans_of(height, out_height);
  std::vector<float> row(row_values + 1);
  std::vector<Float4> shrunk(columns), sums(columns);
  int in_shrunk = -1;  // the row that `shrunk` holds: neighbours share the one at their border
  for (const Span& rows : down) {
    for (std::size_t i = 0; i < rows.weights.size(); ++i) {
      const int y = rows.first + static_cast<int>(i);
      if (y != in_shrunk) {
        const std::uint8_t* source = pixels + static_cast<std::size_t>(y) * row_values;
        std::copy(source, source + row_values, row.begin());  // eight at a time; inside the sums it would be one by one
        shrink_row(row.data(), across, shrunk.data());
        in_shrunk = y;
      }
      const float weight = rows.weights[i];
      if (i == 0)
        for (std::size_t x = 0; x < columns; ++x) sums[x] = shrunk[x] * weight;
      else
        for (std::size_t x = 0; x < columns; ++x) sums[x] += shrunk[x] * weight;
    }
    for (std::size_t x = 0; x < columns; ++x)
      for (int c = 0; c < kChannels; ++c) *out++ = static_cast<std::uint8_t>(std::clamp<long>(std::lrintf(sums[x][c]), 0, 255));
  }
}

}  // namespace uvit
