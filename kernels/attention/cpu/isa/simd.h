// Vectors of the instruction set that the including file names with UVIT_ISA (a namespace) and UVIT_LANES (floats in a vector: 4, 8, 16).
// Included into one .cpp per instruction set, each compiled with flags of its own: nothing here has linkage, and no standard header with inline
// functions is included, so that the linker can never replace one set's code by another's.
#include <cstddef>
#include <cstdint>
#if UVIT_LANES > 4
#include <immintrin.h>
#endif

#include "kernels/attention/params.h"
#include "kernels/attention/weight.h"

#define UVIT_INLINE static inline __attribute__((always_inline))

namespace uvit::kernels::UVIT_ISA {

constexpr int kLanes = UVIT_LANES;
typedef float Vec __attribute__((vector_size(UVIT_LANES * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(UVIT_LANES * 4)));
typedef float LooseVec __attribute__((vector_size(UVIT_LANES * 4), aligned(4), may_alias));
typedef std::uint16_t HalfVec __attribute__((vector_size(UVIT_LANES * 2)));
typedef std::uint16_t LooseHalfVec __attribute__((vector_size(UVIT_LANES * 2), aligned(2), may_alias));
typedef std::uint16_t LooseHalf __attribute__((aligned(2), may_alias));

UVIT_INLINE Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
UVIT_INLINE void store(float* p, Vec x) { *reinterpret_cast<LooseVec*>(p) = x; }
UVIT_INLINE Vec splat(float x) {
#if UVIT_LANES == 16
  return (Vec)_mm512_set1_ps(x);
#elif UVIT_LANES == 8
  return (Vec)_mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}
UVIT_INLINE IntVec splat_int(std::int32_t x) { return IntVec{} + x; }
UVIT_INLINE IntVec lane_index() {
#if UVIT_LANES == 16
  return IntVec{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif UVIT_LANES == 8
  return IntVec{0, 1, 2, 3, 4, 5, 6, 7};
#else
  return IntVec{0, 1, 2, 3};
#endif
}
/// x in the first n lanes, `otherwise` in the rest.
UVIT_INLINE Vec first_lanes(Vec x, std::int64_t n, Vec otherwise) { return lane_index() < splat_int(static_cast<std::int32_t>(n)) ? x : otherwise; }
/// The larger value; the second where either is NaN.
UVIT_INLINE Vec max(Vec a, Vec b) {
#if UVIT_LANES == 16
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif UVIT_LANES == 8
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}
UVIT_INLINE float reduce_add(Vec x) {
#if UVIT_LANES == 16
  return _mm512_reduce_add_ps((__m512)x);
#else
  float sum = x[0];
  for (int i = 1; i < kLanes; ++i) sum += x[i];
  return sum;
#endif
}
/// The largest lane. It may lose a NaN: the exponential of that lane brings it back.
UVIT_INLINE float reduce_max(Vec x) {
#if UVIT_LANES == 16
  return _mm512_reduce_max_ps((__m512)x);
#else
  float largest = x[0];
  for (int i = 1; i < kLanes; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
#endif
}

UVIT_INLINE Vec round_to_integer(Vec y) {
#if UVIT_LANES == 16
  return (Vec)_mm512_roundscale_ps((__m512)y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif UVIT_LANES == 8
  return (Vec)_mm256_round_ps((__m256)y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, |y| < 2^22
  return (y + magic) - magic;
#endif
}
/// log2(e) x - n without the rounding of the product, which for x = -20 alone would cost 5e-7 of e^x.
UVIT_INLINE Vec fraction(Vec x, Vec n) {
#if UVIT_LANES == 16
  const __m512 high = _mm512_fmsub_ps((__m512)x, (__m512)splat(1.44269502f), (__m512)n);
  return (Vec)_mm512_fmadd_ps((__m512)x, (__m512)splat(1.92596299e-8f), high);
#elif UVIT_LANES == 8
  const __m256 high = _mm256_fmsub_ps((__m256)x, (__m256)splat(1.44269502f), (__m256)n);
  return (Vec)_mm256_fmadd_ps((__m256)x, (__m256)splat(1.92596299e-8f), high);
#else
  return ((x - n * splat(0.693359375f)) + n * splat(2.12194440e-4f)) * splat(1.44269504f);  // n times a 10-bit constant is exact
#endif
}
/// x * 2^n for an integer-valued n, -127 and below: 0, 128 and above: infinity.
UVIT_INLINE Vec scale_by_power(Vec x, Vec n) {
#if UVIT_LANES == 16
  return (Vec)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
  const IntVec exponent = __builtin_convertvector(n, IntVec);
  return x * (Vec)((exponent + 127) << 23);
#endif
}

/// The operations of the weight policies. Degree: of the polynomial for 2^r; its largest relative error is 2e-9 (6) and 7.5e-5 (3, for weights that
/// are rounded to bfloat16's 3.9e-3 next).
template <int kDegree>
struct Ops {
  using V = Vec;
  static UVIT_WEIGHT_FN V splat(float x) { return UVIT_ISA::splat(x); }
  static UVIT_WEIGHT_FN V exp(V x) {
    V y = x * splat(1.44269502f);
#if UVIT_LANES < 16
    // Written so that a NaN passes through.
    y = y < splat(-127.0f) ? splat(-127.0f) : y;
    y = y > splat(128.0f) ? splat(128.0f) : y;
#endif
    const V n = round_to_integer(y);
    V p, r;
    if constexpr (kDegree == 6) {
      r = fraction(x, n);
      p = splat(0.000153458122f) * r + splat(0.00133999312f);
      p = p * r + splat(0.00961848896f);
      p = p * r + splat(0.0555032878f);
      p = p * r + splat(0.240226469f);
      p = p * r + splat(0.693147206f);
      p = p * r + splat(1.0f);
    } else {
      r = y - n;
      p = splat(0.0551716691f) * r + splat(0.242611122f);
      p = p * r + splat(0.693260985f);
      p = p * r + splat(0.999928074f);
    }
    return scale_by_power(p, n);
  }
  static UVIT_WEIGHT_FN V abs(V x) { return (V)((IntVec)x & 0x7fffffff); }
  static UVIT_WEIGHT_FN V max0(V x) { return max(splat(0), x); }
  /// magnitude (not negative) with the sign of t; 0 where t is 0.
  static UVIT_WEIGHT_FN V with_sign_of(V magnitude, V t) {
    const V x = (V)((IntVec)magnitude | ((IntVec)t & static_cast<std::int32_t>(0x80000000)));
    return if_nonzero(t, x);
  }
  static UVIT_WEIGHT_FN V if_nonzero(V t, V x) { return t != splat(0) ? x : splat(0); }
  static UVIT_WEIGHT_FN V if_positive(V t, V x) { return t > splat(0) ? x : splat(0); }
};

}  // namespace uvit::kernels::UVIT_ISA
