#pragma once
// What the row kernels share: four elements at a time, sums over a warp, and sums over rows in a fixed order.
#include <cstdint>
#include <cstring>

#include "kernels/cuda/launch.cuh"

namespace uvit::kernels::cuda {

namespace arch = ::uvit::cuda::arch;

inline constexpr int kWarps = 4, kThreads = 32 * kWarps;  ///< of a block; a warp works on one row at a time
inline constexpr int kVector = 4;                         ///< elements a lane moves at once

template <class T>
UVIT_DEVICE void load_four(const T* from, float (&to)[kVector]) {
  const arch::Words<2> words = arch::load_global<2>(from);
  for (int i = 0; i < 2; ++i) {
    const arch::Pair pair = arch::unpack2<T>(words.w[i]);
    to[2 * i] = pair.lo;
    to[2 * i + 1] = pair.hi;
  }
}
template <>
UVIT_DEVICE void load_four<float>(const float* from, float (&to)[kVector]) {
  const arch::Words<4> words = arch::load_global<4>(from);
  std::memcpy(to, words.w, sizeof(to));
}

template <class T>
UVIT_DEVICE void store_four(T* to, const float (&from)[kVector]) {
  arch::store_global<2>(to, {{arch::pack2<T>(from[0], from[1]), arch::pack2<T>(from[2], from[3])}});
}
template <>
UVIT_DEVICE void store_four<float>(float* to, const float (&from)[kVector]) {
  arch::Words<4> words;
  std::memcpy(words.w, from, sizeof(from));
  arch::store_global<4>(to, words);
}

/// 16 bytes of shared memory at once: four scalar accesses by 32 lanes would each meet in the same eight banks.
UVIT_DEVICE void load_shared_four(const float* from, float (&to)[kVector]) {
  const arch::Words<4> words = arch::load_shared<4>(from);
  std::memcpy(to, words.w, sizeof(to));
}
UVIT_DEVICE void store_shared_four(float* to, const float (&from)[kVector]) {
  arch::Words<4> words;
  std::memcpy(words.w, from, sizeof(from));
  arch::store_shared<4>(to, words);
}

/// Of all lanes, in every lane.
UVIT_DEVICE float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask >>= 1) x += arch::shuffle_xor(x, mask);
  return x;
}

inline constexpr int kMostPartials = 512;  ///< blocks that share the rows of a sum: enough to fill a GPU, few enough to add up quickly

inline int partial_blocks(std::int64_t rows) {
  const std::int64_t blocks = (rows + kWarps - 1) / kWarps;
  return static_cast<int>(blocks < kMostPartials ? blocks : kMostPartials);
}

/// Sums over blocks, in their order, of partial [blocks, 1 or 2, width] to first [width] and, where it is not null, second [width].
/// Defined in column_sums.cu.
void add_partials(const float* partial, int blocks, int width, float* first, float* second, ::uvit::cuda::Stream stream);

}  // namespace uvit::kernels::cuda
