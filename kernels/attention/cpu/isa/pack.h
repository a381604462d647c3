// Copies of the strided operands in the layouts that the micro-kernels read.
#include "kernels/attention/cpu/isa/gemm.h"

namespace uvit::kernels::UVIT_ISA {

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Cells of a sum over n values, and the columns of weights that one row of them fills.
template <class C>
constexpr std::int64_t cells_of(std::int64_t n) {
  return round_up((n + C::kPair - 1) / C::kPair, C::kDepth);
}
template <class C>
constexpr std::int64_t columns_of(std::int64_t n) {
  return round_up(n, C::kDepth * C::kPair > kLanes ? C::kDepth * C::kPair : kLanes);
}

/// Length of the slices in which a sum over n cells is taken. Tiles: of equal length, as a short last one would load and store the result for a tile
/// or two (257 keys are 129 cells).
template <class C>
constexpr std::int64_t slice_of(std::int64_t n) {
  if (C::kDepth == 1) return kSlice;
  const std::int64_t slices = n < 2 * kSlice ? 1 : n / kSlice;
  return round_up(n / slices + 1, C::kDepth);
}

/// One head of a tensor: rows of `width` values.
struct Matrix {
  const char* data;
  std::int64_t row_bytes, width;
  UVIT_WEIGHT_FN const char* row(std::int64_t i) const { return data + i * row_bytes; }
};
struct MutableMatrix {
  char* data;
  std::int64_t row_bytes, width;
  UVIT_WEIGHT_FN char* row(std::int64_t i) const { return data + i * row_bytes; }
};
template <Dtype kType>
static Matrix matrix(const View& view, std::int64_t b, std::int64_t h, std::int64_t width) {
  const std::int64_t size = kType == Dtype::f32 ? 4 : 2;
  return {static_cast<const char*>(view.data) + size * (b * view.stride_b + h * view.stride_h), size * view.stride_l, width};
}
template <Dtype kType>
static MutableMatrix matrix(const MutableView& view, std::int64_t b, std::int64_t h, std::int64_t width) {
  const std::int64_t size = kType == Dtype::f32 ? 4 : 2;
  return {static_cast<char*>(view.data) + size * (b * view.stride_b + h * view.stride_h), size * view.stride_l, width};
}

/// Operand a: rows [begin, begin + rows) as width / kPair cells each.
template <class C>
static void pack_along(const Matrix& m, std::int64_t begin, std::int64_t rows, float* to, std::int64_t to_row) {
  const std::int64_t cells = m.width / C::kPair;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = 0; c < cells; c += kLanes) store(to + i * to_row + c, C::load_cells(m.row(begin + i), c, cells - c));
}

/// Operand b of a sum over rows: kPair rows a line of `to_row` (a multiple of kLanes, at least width) cells, zeros beyond the rows and the width:
/// cells_of(rows) lines.
template <class C>
static void pack_across(const Matrix& m, std::int64_t begin, std::int64_t rows, float* to, std::int64_t to_row) {
  for (std::int64_t i = 0; i < rows; i += C::kPair, to += to_row) {
    const char* next = i + 1 < rows ? m.row(begin + i + 1) : nullptr;
    for (std::int64_t c = 0; c < to_row; c += kLanes) store(to + c, c < m.width ? C::load_pairs(m.row(begin + i), next, c, m.width - c) : Vec{});
  }
  for (std::int64_t line = (rows + C::kPair - 1) / C::kPair; line % C::kDepth != 0; ++line, to += to_row)
    for (std::int64_t c = 0; c < to_row; c += kLanes) store(to + c, Vec{});
}

#if UVIT_LANES == 16
/// Transposes a 16 x 16 block in registers: pairs, quadruples, then blocks of 4 lanes.
UVIT_INLINE void transpose_block(Vec* rows) {
  __m512 t[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_unpacklo_ps((__m512)rows[i], (__m512)rows[i + 1]), b = _mm512_unpackhi_ps((__m512)rows[i], (__m512)rows[i + 1]);
    const __m512 c = _mm512_unpacklo_ps((__m512)rows[i + 2], (__m512)rows[i + 3]), d = _mm512_unpackhi_ps((__m512)rows[i + 2], (__m512)rows[i + 3]);
    t[i] = _mm512_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
    rows[i] = (Vec)_mm512_shuffle_f32x4(a, c, 0x88);
    rows[i + 4] = (Vec)_mm512_shuffle_f32x4(b, d, 0x88);
    rows[i + 8] = (Vec)_mm512_shuffle_f32x4(a, c, 0xdd);
    rows[i + 12] = (Vec)_mm512_shuffle_f32x4(b, d, 0xdd);
  }
}
#else
/// Transposes a kLanes x kLanes block in registers: stage s exchanges blocks of s lanes between rows s apart.
UVIT_INLINE void transpose_block(Vec* rows) {
#pragma GCC unroll 8
  for (int s = kLanes / 2; s > 0; s /= 2) {
    IntVec low, high;
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) {
      low[l] = l & s ? l - s + kLanes : l;
      high[l] = l & s ? l + kLanes : l + s;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      if (!(i & s)) {
        const Vec a = rows[i], b = rows[i + s];
        rows[i] = __builtin_shuffle(a, b, low);
        rows[i + s] = __builtin_shuffle(a, b, high);
      }
  }
}
#endif

/// Operand b of a sum over the width: panels of kBlockColumns rows of m, each panel width / kPair lines of kBlockColumns cells. Zeros beyond the
/// rows, up to a multiple of kLanes columns.
template <class C>
static void pack_transposed(const Matrix& m, std::int64_t rows, float* to) {
  const std::int64_t cells = m.width / C::kPair;
  for (std::int64_t r = 0; r < rows; r += kLanes) {
    float* column = to + r / kBlockColumns * kBlockColumns * cells + r % kBlockColumns;
    const bool full_rows = r + kLanes <= rows;
    for (std::int64_t c = 0; c < cells; c += kLanes) {
      Vec block[kLanes];
      if (full_rows && c + kLanes <= cells) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) block[i] = C::load_cells(m.row(r + i), c, kLanes);
        transpose_block(block);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(column + (c + i) * kBlockColumns, block[i]);
        continue;
      }
      for (int i = 0; i < kLanes; ++i) block[i] = r + i < rows ? C::load_cells(m.row(r + i), c, cells - c) : Vec{};
      transpose_block(block);
      for (int i = 0; i < kLanes && c + i < cells; ++i) store(column + (c + i) * kBlockColumns, block[i]);
    }
  }
}

/// to[row begin + i] = factor_i * from[i], rounded to the tensor's dtype.
template <Dtype kType>
static void write_rows(const float* from, std::int64_t from_row, std::int64_t rows, const MutableMatrix& m, std::int64_t begin, float factor) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = 0; c < m.width; c += kLanes)
      store_values<kType>(m.row(begin + i), c, m.width - c, load(from + i * from_row + c) * splat(factor));
}

}  // namespace uvit::kernels::UVIT_ISA
