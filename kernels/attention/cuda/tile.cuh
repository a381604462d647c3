#pragma once
// Tiles of 16-bit tensors in shared memory, and the tensor-core products over them.
//
// A row of kWidth elements is kWidth / 8 chunks of 16 bytes; chunk c of row r lies at place c ^ (r & 7), so that the 8 rows of one matrix that
// ldmatrix reads fall on different banks, and so do the chunks that neighbouring threads write.
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/math.cuh"

namespace uvit::kernels::cuda {

template <class T, int kWidth>
UVIT_DEVICE T* tile_at(T* tile, int row, int chunk) {
  return tile + row * kWidth + ((chunk ^ (row & 7)) << 3);
}

/// Begins to copy rows [first, first + kRows) of a head to a tile; what lies beyond `length` rows or `width` columns becomes 0, and is not read.
template <class T, int kWidth, int kRows, int kThreads>
UVIT_DEVICE void load_tile(T* tile, const T* head, std::int64_t stride, int first, int length, int width) {
  constexpr int kChunks = kWidth / 8, kRowStep = kThreads / kChunks;
  static_assert(kThreads % kChunks == 0 && kRows % kRowStep == 0);
  const int chunk = arch::thread_index() % kChunks, row0 = arch::thread_index() / kChunks, stride32 = static_cast<int>(stride);
  const int rows_left = chunk * 8 < width ? length - first - row0 : 0;
  const T* source = head + static_cast<std::int64_t>(first + row0) * stride32 + chunk * 8;
  UVIT_UNROLL
  for (int i = 0; i < kRows / kRowStep; ++i)
    arch::cp_async_16(tile_at<T, kWidth>(tile, row0 + i * kRowStep, chunk), source + static_cast<std::int64_t>(i * kRowStep) * stride32,
                      i * kRowStep < rows_left);
}

/// The rows' 16 x 16 fragment of A at column 16 k.
template <class T, int kWidth>
UVIT_DEVICE void load_a(std::uint32_t (&a)[4], T* tile, int row0, int k) {
  const int lane = arch::thread_index() & 31;
  arch::ldmatrix_x4(a, tile_at<T, kWidth>(tile, row0 + (lane & 15), 2 * k + (lane >> 4)));
}

/// Fragments of B for two blocks of 8 columns n, from a tile whose rows are n: b[0], b[1] of the first block.
template <class T, int kWidth>
UVIT_DEVICE void load_b(std::uint32_t (&b)[4], T* tile, int row0, int k) {
  const int lane = arch::thread_index() & 31;
  arch::ldmatrix_x4(b, tile_at<T, kWidth>(tile, row0 + (lane & 7) + ((lane >> 4) << 3), 2 * k + ((lane >> 3) & 1)));
}

/// The same from a tile whose rows are k.
template <class T, int kWidth>
UVIT_DEVICE void load_b_trans(std::uint32_t (&b)[4], T* tile, int k, int n) {
  const int lane = arch::thread_index() & 31;
  arch::ldmatrix_x4_trans(b, tile_at<T, kWidth>(tile, 16 * k + (lane & 15), 2 * n + (lane >> 4)));
}

/// Rows of A: fragments in registers, or in shared memory where there are too few.
template <class T, int kWidth, int kM, bool kKeep>
struct RowFragments {
  std::uint32_t kept[kM][kWidth / 16][4];
  UVIT_DEVICE void load(T* tile, int row0) {
    UVIT_UNROLL
    for (int m = 0; m < kM; ++m)
      UVIT_UNROLL
      for (int k = 0; k < kWidth / 16; ++k) load_a<T, kWidth>(kept[m][k], tile, row0 + 16 * m, k);
  }
  UVIT_DEVICE void get(std::uint32_t (&a)[4], int m, int k) const {
    UVIT_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = kept[m][k][i];
  }
};
template <class T, int kWidth, int kM>
struct RowFragments<T, kWidth, kM, false> {
  T* tile_;
  int row0_;
  UVIT_DEVICE void load(T* tile, int row0) {
    tile_ = tile;
    row0_ = row0;
  }
  UVIT_DEVICE void get(std::uint32_t (&a)[4], int m, int k) const { load_a<T, kWidth>(a, tile_, row0_ + 16 * m, k); }
};

/// s = rows x tile^T: s[m][n] is the block of rows 16 m and tile rows 8 n. Of kN / 16 pairs of blocks the first `pairs` are computed, the rest is 0.
template <class T, int kWidth, int kM, int kN, bool kKeep>
UVIT_DEVICE void multiply_rows(float (&s)[kM][kN / 8][4], const RowFragments<T, kWidth, kM, kKeep>& rows, T* tile, int pairs) {
  UVIT_UNROLL
  for (int m = 0; m < kM; ++m)
    UVIT_UNROLL
    for (int n = 0; n < kN / 8; ++n)
      UVIT_UNROLL
      for (int e = 0; e < 4; ++e) s[m][n][e] = 0;
  UVIT_UNROLL
  for (int k = 0; k < kWidth / 16; ++k) {
    std::uint32_t a[kM][4];
    UVIT_UNROLL
    for (int m = 0; m < kM; ++m) rows.get(a[m], m, k);
    UVIT_UNROLL
    for (int n = 0; n < kN / 16; ++n) {
      if (n >= pairs) continue;
      std::uint32_t b[4];
      load_b<T, kWidth>(b, tile, 16 * n, k);
      UVIT_UNROLL
      for (int m = 0; m < kM; ++m) {
        arch::mma_m16n8k16<T>(s[m][2 * n], a[m], b[0], b[1]);
        arch::mma_m16n8k16<T>(s[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// Two neighbours of an accumulator block are one register of the next product's A fragment, once they are rounded to 16 bits: 8-column blocks
/// 2 k and 2 k + 1 make the 16 of step k.
template <int kN16>
UVIT_DEVICE std::uint32_t& fragment_at(std::uint32_t (&a)[kN16][4], int block, int row_half) {
  return a[block >> 1][2 * (block & 1) + row_half];
}
template <class T, int kN8>
UVIT_DEVICE void to_fragments(std::uint32_t (&a)[kN8 / 2][4], const float (&w)[kN8][4]) {
  UVIT_UNROLL
  for (int n = 0; n < kN8; ++n)
    UVIT_UNROLL
    for (int r = 0; r < 2; ++r) fragment_at(a, n, r) = arch::pack2<T>(w[n][2 * r], w[n][2 * r + 1]);
}

/// Packed magnitudes with the signs of two scores, and 0 where a score is 0.
UVIT_DEVICE std::uint32_t with_signs(std::uint32_t magnitudes, float lo, float hi) {
  const std::uint32_t signs = arch::high_halves(lo, hi);
  return (magnitudes | (signs & 0x80008000u)) & arch::nonzero_halves(signs);
}

/// sums[h] += weights[h] x tile for kHalves sums, tile rows being the summed index; the first `pairs` steps of 16 rows. second_tile: for the second
/// sum, where not null.
template <class T, int kWidth, int kHalves, int kM, int kN16>
UVIT_DEVICE void accumulate(float (*sums)[kM][kWidth / 8][4], const std::uint32_t (*weights)[kM][kN16][4], T* tile, T* second_tile, int pairs) {
  UVIT_UNROLL
  for (int k = 0; k < kN16; ++k) {
    if (k >= pairs) continue;
    UVIT_UNROLL
    for (int n = 0; n < kWidth / 16; ++n) {
      std::uint32_t b[4];
      load_b_trans<T, kWidth>(b, tile, k, n);
      UVIT_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        if (half == 1 && second_tile != nullptr) load_b_trans<T, kWidth>(b, second_tile, k, n);
        UVIT_UNROLL
        for (int m = 0; m < kM; ++m) {
          arch::mma_m16n8k16<T>(sums[half][m][2 * n], weights[half][m][k], b[0], b[1]);
          arch::mma_m16n8k16<T>(sums[half][m][2 * n + 1], weights[half][m][k], b[2], b[3]);
        }
      }
    }
  }
}

/// What the addend gives to (head, row, column).
UVIT_DEVICE float addend_at(const Addend& addend, int head, int h, int row, int column) {
  if (addend.data == nullptr) return 0;
  const int from = row + addend.row_offset > 0 ? row + addend.row_offset : 0;
  const float factor = addend.factor * (addend.weight == nullptr ? 1.0f : addend.weight[h]);
  return factor * addend.data[head * addend.head_step + static_cast<std::int64_t>(from) * addend.row_step + column];
}

template <class T>
UVIT_DEVICE T* head_of(const View& view, int b, int h) {
  return static_cast<T*>(const_cast<void*>(view.data)) + b * view.stride_b + h * view.stride_h;
}
template <class T>
UVIT_DEVICE T* head_of(const MutableView& view, int b, int h) {
  return static_cast<T*>(view.data) + b * view.stride_b + h * view.stride_h;
}

/// Keys that query i sees: the first visible_keys(i).
UVIT_DEVICE int visible_keys(const Problem& p, int i) {
  if (!p.causal) return p.Lk;
  const int n = i + 1 + p.Lk - p.L;
  return n < 0 ? 0 : n < p.Lk ? n : p.Lk;
}

}  // namespace uvit::kernels::cuda
