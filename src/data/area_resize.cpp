#include "data/area_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
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

std::vector<Span> spans_of(int source, double extent, int target) {
  constexpr double kLeast = 1e-3;  // a share of a pixel below this does not count
  const double factor = 1.0 / (static_cast<double>(target) / extent);
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

/// The spans of a row as taps: `count` of them for each target position, those beyond its span with weight 0, which changes no sum. One loop of fixed
/// length serves all, where the spans' own lengths would be guessed wrong by the processor time and again.
struct Taps {
  int count = 0;
  std::vector<int> first;      ///< [target], of values
  std::vector<float> weights;  ///< [target, count]
};

Taps taps_of(const std::vector<Span>& spans) {
  Taps taps;
  for (const Span& span : spans) taps.count = std::max(taps.count, static_cast<int>(span.weights.size()));
  taps.weights.assign(spans.size() * static_cast<std::size_t>(taps.count), 0.0f);
  for (std::size_t i = 0; i < spans.size(); ++i) {
    taps.first.push_back(spans[i].first * kChannels);
    std::copy(spans[i].weights.begin(), spans[i].weights.end(), taps.weights.begin() + static_cast<std::ptrdiff_t>(i * static_cast<std::size_t>(taps.count)));
  }
  return taps;
}

/// One row of the picture, shrunk. @param row  its values, and zeros for a whole span of taps behind them
template <int kCount>
void shrink_row(const float* row, const Taps& taps, Float4* out) {
  const int count = kCount > 0 ? kCount : taps.count;
  const float* weight = taps.weights.data();
  for (const int first : taps.first) {
    const float* pixel = row + first;
    Float4 sum = {};
    for (int k = 0; k < count; ++k) {
      Float4 values;
      std::memcpy(&values, pixel + k * kChannels, sizeof values);
      sum += values * weight[k];
    }
    weight += count;
    *out++ = sum;
  }
}

using ShrinkRow = void (*)(const float* row, const Taps& taps, Float4* out);

ShrinkRow shrink_row_of(int count) {
  static constexpr ShrinkRow kUnrolled[] = {shrink_row<0>, shrink_row<1>, shrink_row<2>, shrink_row<3>, shrink_row<4>, shrink_row<5>, shrink_row<6>, shrink_row<7>, shrink_row<8>};
  return count < static_cast<int>(std::size(kUnrolled)) ? kUnrolled[count] : kUnrolled[0];
}

/// A mean of bytes, to the nearest whole number, halves to the even one (as lrintf does, without its call): adding 1.5 * 2^23 rounds away all that is
/// behind the point.
std::uint8_t rounded(float mean) {
  constexpr float kNoFraction = 12582912.0f;
  const float whole = mean + kNoFraction;
  return static_cast<std::uint8_t>(std::clamp(whole - kNoFraction, 0.0f, 255.0f));
}

}  // namespace

void resize_area_rgb(const std::uint8_t* pixels, int height, int width, std::uint8_t* out, int out_height, int out_width, double extent_height,
                     double extent_width) {
  const std::size_t row_values = static_cast<std::size_t>(width) * kChannels, columns = static_cast<std::size_t>(out_width);
  const std::vector<Span> down = spans_of(height, extent_height, out_height);
  const Taps across = taps_of(spans_of(width, extent_width, out_width));
  const ShrinkRow shrink_row = shrink_row_of(across.count);
  std::vector<float> row(row_values + static_cast<std::size_t>(across.count) * kChannels + 1);
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
      for (int c = 0; c < kChannels; ++c) *out++ = rounded(sums[x][c]);
  }
}

}  // namespace uvit
