// The two ways of multiplying: cells of one float, and cells of two bfloat16 that belong to neighbouring places of the sum (vdpbf16ps).
// Every packed operand is an array of 32-bit cells, so packing, micro-kernels and drivers are one code for both.
#include "kernels/attention/cpu/isa/simd.h"

namespace uvit::kernels::UVIT_ISA {

UVIT_INLINE Vec widen(HalfVec x) {
#if UVIT_LANES == 16
  return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)x), 16);
#elif UVIT_LANES == 8
  return (Vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)x), 16);
#else
  return (Vec)(__builtin_convertvector(x, IntVec) << 16);
#endif
}
UVIT_INLINE Vec load_bf16(const LooseHalf* p) { return widen(*reinterpret_cast<const LooseHalfVec*>(p)); }
/// Rounds to nearest even; a NaN stays a NaN.
UVIT_INLINE HalfVec narrow(Vec x) {
#ifdef UVIT_BF16_DOT
  return (HalfVec)_mm512_cvtneps_pbh((__m512)x);
#else
  const IntVec bits = (IntVec)x;
  const IntVec rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const IntVec kept = x == x ? rounded : (bits | 0x400000);
  return __builtin_convertvector((kept >> 16) & 0xffff, HalfVec);
#endif
}

/// n (at most kLanes) values of a row of floats or bfloat16 as floats; the rest are 0.
template <Dtype kType>
UVIT_INLINE Vec load_values(const void* row, std::int64_t at, std::int64_t n) {
  if constexpr (kType == Dtype::f32) {
    const float* p = static_cast<const float*>(row) + at;
    if (n >= kLanes) return load(p);
    float lanes[kLanes] = {};
    for (std::int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  } else {
    const LooseHalf* p = static_cast<const LooseHalf*>(row) + at;
    if (n >= kLanes) return load_bf16(p);
    LooseHalf lanes[kLanes] = {};
    for (std::int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load_bf16(lanes);
  }
}
template <Dtype kType>
UVIT_INLINE void store_values(void* row, std::int64_t at, std::int64_t n, Vec x) {
  if constexpr (kType == Dtype::f32) {
    float* p = static_cast<float*>(row) + at;
    if (n >= kLanes) return store(p, x);
    float lanes[kLanes];
    store(lanes, x);
    for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  } else {
    LooseHalf* p = static_cast<LooseHalf*>(row) + at;
    if (n >= kLanes) {
      *reinterpret_cast<LooseHalfVec*>(p) = narrow(x);
      return;
    }
    LooseHalf lanes[kLanes];
    *reinterpret_cast<LooseHalfVec*>(lanes) = narrow(x);
    for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }
}

/// One float a cell; reads float or bfloat16 tensors.
template <Dtype kType>
struct FloatCells {
  static constexpr Dtype kDtype = kType;
  static constexpr int kPair = 1;
  /// Sums of packed operands are padded with zeros to a multiple of this many cells.
  static constexpr std::int64_t kDepth = 1;
  /// Lives while an item of work runs.
  struct Session {};
  using Math = Ops<6>;
  static UVIT_WEIGHT_FN Vec dot(Vec sum, Vec a, Vec b) { return sum + a * b; }
  /// n cells of a row from cell `at` on, the rest 0.
  static UVIT_WEIGHT_FN Vec load_cells(const void* row, std::int64_t at, std::int64_t n) { return load_values<kType>(row, at, n); }
  /// Cells that pair this row's values with the next row's (here the row alone).
  static UVIT_WEIGHT_FN Vec load_pairs(const void* row, const void*, std::int64_t at, std::int64_t n) { return load_values<kType>(row, at, n); }
  /// Weights of one row at columns j..j+kLanes-1 as cells along the row, written over the scores they came from.
  static UVIT_WEIGHT_FN void store_along(float* row, std::int64_t j, Vec w) { store(row + j, w); }
  /// Weights of kPair rows as cells across the rows.
  static UVIT_WEIGHT_FN void store_across(float* row, std::int64_t j, const Vec* w) { store(row + j, w[0]); }
};

#ifdef UVIT_BF16_DOT
/// Two bfloat16 a cell, products summed in float.
struct PairCells {
  static constexpr Dtype kDtype = Dtype::bf16;
  static constexpr int kPair = 2;
  static constexpr std::int64_t kDepth = 1;
  struct Session {};
  using Math = Ops<3>;
  static UVIT_WEIGHT_FN Vec dot(Vec sum, Vec a, Vec b) { return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
  static UVIT_WEIGHT_FN Vec load_cells(const void* row, std::int64_t at, std::int64_t n) {
    // A pair of bfloat16 moves like one float, from a place that is even but no more.
    const LooseHalf* p = static_cast<const LooseHalf*>(row) + 2 * at;
    float lanes[kLanes] = {};
    __builtin_memcpy(lanes, p, static_cast<std::size_t>(n < kLanes ? n : kLanes) * sizeof(float));
    return load(lanes);
  }
  static UVIT_WEIGHT_FN Vec load_pairs(const void* row, const void* next, std::int64_t at, std::int64_t n) {
    const __m512i low = _mm512_srli_epi32((__m512i)load_values<Dtype::bf16>(row, at, n), 16);
    if (!next) return (Vec)low;
    return (Vec)_mm512_or_si512(low, (__m512i)load_values<Dtype::bf16>(next, at, n));
  }
  static UVIT_WEIGHT_FN void store_along(float* row, std::int64_t j, Vec w) {
    *reinterpret_cast<LooseHalfVec*>(reinterpret_cast<LooseHalf*>(row) + j) = narrow(w);
  }
  static UVIT_WEIGHT_FN void store_across(float* row, std::int64_t j, const Vec* w) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)w[1], (__m512)w[0]);
    const __m512i index =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    store(row + j, (Vec)_mm512_permutexvar_epi16(index, both));
  }
};
#endif

}  // namespace uvit::kernels::UVIT_ISA
