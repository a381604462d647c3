// Register-blocked products c (+)= a b on packed cells.
#include "kernels/attention/cpu/isa/compute.h"

namespace uvit::kernels::UVIT_ISA {

/// Widest block of columns, in vectors, and the rows that fill the registers beside it.
#if UVIT_LANES == 16
constexpr int kBlockVecs = 4;
constexpr int kRows[kBlockVecs + 1] = {0, 12, 12, 8, 6};
#else
constexpr int kBlockVecs = 2;
constexpr int kRows[kBlockVecs + 1] = {0, 6, 6};
#endif
constexpr int kMaxRows = 12;
constexpr std::int64_t kBlockColumns = kBlockVecs * kLanes;
/// Length of a slice of the sum: 128 rows of b of kBlockColumns cells stay in the first-level cache.
constexpr std::int64_t kSlice = 128;

/// c[i][0..kVecs) (+)= sum_k a[i * a_row + k * a_k] b[k * b_row + ...] for kM rows.
template <class C, int kM, int kVecs>
static void micro_kernel(std::int64_t depth, const float* a, std::int64_t a_row, std::int64_t a_k, const float* b, std::int64_t b_row, float* c,
                         std::int64_t c_row, bool add) {
  Vec sum[kM][kVecs];
#pragma GCC unroll 16
  for (int i = 0; i < kM; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) sum[i][j] = Vec{};
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec line[kVecs];
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) line[j] = load(b + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kM; ++i) {
      const Vec value = splat(a[i * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < kVecs; ++j) sum[i][j] = C::dot(sum[i][j], value, line[j]);
    }
    a += a_k;
    b += b_row;
  }
  if (add) {
#pragma GCC unroll 16
    for (int i = 0; i < kM; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVecs; ++j) sum[i][j] += load(c + i * c_row + j * kLanes);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kM; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVecs; ++j) store(c + i * c_row + j * kLanes, sum[i][j]);
}

using MicroKernel = void (*)(std::int64_t, const float*, std::int64_t, std::int64_t, const float*, std::int64_t, float*, std::int64_t, bool);

/// The micro-kernel for every number of rows up to kRows[kVecs].
template <class C, int kVecs>
struct MicroKernels {
  MicroKernel of_rows[kMaxRows + 1] = {};
  constexpr MicroKernels() { fill<1>(); }
  template <int kM>
  constexpr void fill() {
    of_rows[kM] = micro_kernel<C, kM, kVecs>;
    if constexpr (kM < kRows[kVecs]) fill<kM + 1>();
  }
};
template <class C, int kVecs>
static constexpr MicroKernels<C, kVecs> kMicroKernels{};

template <class C>
static const MicroKernel* micro_kernels(std::int64_t vecs) {
#if UVIT_LANES == 16
  if (vecs == 3) return kMicroKernels<C, 3>.of_rows;
  if (vecs == 4) return kMicroKernels<C, 4>.of_rows;
#endif
  return vecs == 1 ? kMicroKernels<C, 1>.of_rows : kMicroKernels<C, 2>.of_rows;
}

/// One block of columns (vecs <= kBlockVecs) of c (+)= a b, all rows.
template <class C>
static void multiply_block(std::int64_t rows, std::int64_t vecs, std::int64_t depth, const float* a, std::int64_t a_row, std::int64_t a_k,
                           const float* b, std::int64_t b_row, float* c, std::int64_t c_row, bool add) {
  const MicroKernel* kernels = micro_kernels<C>(vecs);
  const std::int64_t step = kRows[vecs];
  for (std::int64_t i = 0; i < rows; i += step) {
    const std::int64_t m = rows - i < step ? rows - i : step;
    kernels[m](depth, a + i * a_row, a_row, a_k, b, b_row, c + i * c_row, c_row, add);
  }
}

/// c [rows, vecs * kLanes] = a b where b lies in panels of kBlockColumns columns (pack_transposed), the first panel at `b`.
template <class C>
static void multiply_panels(std::int64_t rows, std::int64_t vecs, std::int64_t depth, const float* a, std::int64_t a_row, const float* b, float* c,
                            std::int64_t c_row) {
  for (std::int64_t v = 0; v < vecs; v += kBlockVecs)
    multiply_block<C>(rows, vecs - v < kBlockVecs ? vecs - v : kBlockVecs, depth, a, a_row, 1, b + v * kLanes * depth, kBlockColumns, c + v * kLanes,
                      c_row, false);
}

/// c [rows, vecs * kLanes] (+)= a b where b has rows of b_row cells; the sum is taken in slices.
template <class C>
static void multiply_rows(std::int64_t rows, std::int64_t vecs, std::int64_t depth, const float* a, std::int64_t a_row, std::int64_t a_k,
                          const float* b, std::int64_t b_row, float* c, std::int64_t c_row, bool add) {
  for (std::int64_t v = 0; v < vecs; v += kBlockVecs)
    for (std::int64_t k = 0; k < depth || (k == 0 && !add); k += kSlice)
      multiply_block<C>(rows, vecs - v < kBlockVecs ? vecs - v : kBlockVecs, depth - k < kSlice ? depth - k : kSlice, a + k * a_k, a_row, a_k,
                        b + k * b_row + v * kLanes, b_row, c + v * kLanes, c_row, add || k > 0);
}

}  // namespace uvit::kernels::UVIT_ISA
