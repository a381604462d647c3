#pragma once
// float32 tiles and products by fused multiply-adds: 256 threads as 16 x 16; thread (ty, tx) has rows ty + 16 i of a product, and columns tx + 16 j
// of scores or the four columns 4 (tx + 16 n) of sums. A row of scores is then 16 neighbouring lanes. (One TF32 product would flip signs of cog.)
#include "kernels/attention/cuda/tile.cuh"
#include "kernels/attention/cuda/tile_size.h"

namespace uvit::kernels::cuda {

struct Float4 {
  float x[4];
};
UVIT_DEVICE Float4 shared_float4(const float* at) {
  const arch::Words<4> words = arch::load_shared<4>(at);
  Float4 out;
  __builtin_memcpy(&out, &words, sizeof out);
  return out;
}

/// Element (row, 4 chunk) of a tile of kWidth columns, chunks swizzled as in tile.cuh.
template <int kWidth>
UVIT_DEVICE float* f32_at(float* tile, int row, int chunk) {
  return tile + row * kWidth + ((chunk ^ (row & 7)) << 2);
}

/// Copies rows [first, first + kRows) of a head to a tile, 0 beyond its end. The rows need no alignment: neighbouring threads read single floats.
template <int kWidth, int kRows>
UVIT_DEVICE void load_f32(float* tile, const float* head, std::int64_t stride, int first, int length, int width) {
  for (int i = arch::thread_index(); i < kRows * kWidth; i += kF32Threads) {
    const int row = i / kWidth, column = i % kWidth;
    const bool valid = first + row < length && column < width;
    f32_at<kWidth>(tile, row, column >> 2)[column & 3] = valid ? head[(first + row) * stride + column] : 0;
  }
}

/// s = rows x columns^T.
template <int kWidth, int kR, int kC>
UVIT_DEVICE void multiply_f32(float (&s)[kR][kC], float* rows, float* columns) {
  const int ty = arch::thread_index() >> 4, tx = arch::thread_index() & 15;
  UVIT_UNROLL
  for (int i = 0; i < kR; ++i)
    UVIT_UNROLL
    for (int j = 0; j < kC; ++j) s[i][j] = 0;
  for (int chunk = 0; chunk < kWidth / 4; ++chunk) {
    Float4 a[kR], b[kC];
    UVIT_UNROLL
    for (int i = 0; i < kR; ++i) a[i] = shared_float4(f32_at<kWidth>(rows, ty + 16 * i, chunk));
    UVIT_UNROLL
    for (int j = 0; j < kC; ++j) b[j] = shared_float4(f32_at<kWidth>(columns, tx + 16 * j, chunk));
    UVIT_UNROLL
    for (int i = 0; i < kR; ++i)
      UVIT_UNROLL
      for (int j = 0; j < kC; ++j)
        UVIT_UNROLL
        for (int e = 0; e < 4; ++e) s[i][j] = fmaf(a[i].x[e], b[j].x[e], s[i][j]);
  }
}

/// A tile of weights [16 kR][16 kC], for accumulate_f32; rows four floats apart from a multiple of the banks.
template <int kC>
inline constexpr int kWeightStride = 16 * kC + 4;

template <int kR, int kC>
UVIT_DEVICE void put_f32(float* weights, const float (&w)[kR][kC]) {
  const int ty = arch::thread_index() >> 4, tx = arch::thread_index() & 15;
  UVIT_UNROLL
  for (int i = 0; i < kR; ++i)
    UVIT_UNROLL
    for (int j = 0; j < kC; ++j) weights[(ty + 16 * i) * kWeightStride<kC> + tx + 16 * j] = w[i][j];
}

/// sums += weights x tile, the tile's rows being the weights' columns.
template <int kWidth, int kR, int kC>
UVIT_DEVICE void accumulate_f32(float (&sums)[kR][kWidth / 64][4], const float* weights, float* tile) {
  const int ty = arch::thread_index() >> 4, tx = arch::thread_index() & 15;
  for (int j = 0; j < 16 * kC; j += 4) {
    Float4 w[kR];
    UVIT_UNROLL
    for (int i = 0; i < kR; ++i) w[i] = shared_float4(weights + (ty + 16 * i) * kWeightStride<kC> + j);
    UVIT_UNROLL
    for (int k = 0; k < 4; ++k)
      UVIT_UNROLL
      for (int n = 0; n < kWidth / 64; ++n) {
        const Float4 x = shared_float4(f32_at<kWidth>(tile, j + k, tx + 16 * n));
        UVIT_UNROLL
        for (int i = 0; i < kR; ++i)
          UVIT_UNROLL
          for (int e = 0; e < 4; ++e) sums[i][n][e] = fmaf(w[i].x[k], x.x[e], sums[i][n][e]);
      }
  }
}

/// Over the 16 lanes of a row.
UVIT_DEVICE float row_sum_f32(float x) {
  UVIT_UNROLL
  for (int mask = 1; mask < 16; mask <<= 1) x += arch::shuffle_xor(x, mask);
  return x;
}
UVIT_DEVICE float row_max_f32(float x) {
  UVIT_UNROLL
  for (int mask = 1; mask < 16; mask <<= 1) x = fmaxf(x, arch::shuffle_xor(x, mask));
  return x;
}

/// call(policy) of the kind; kinds that are made of softmaxes have its policy.
template <class F>
UVIT_DEVICE void with_weight(Variant variant, Kind kind, F call) {
  if (variant == Variant::cog)
    call(CogWeight{});
  else if (variant != Variant::other)
    call(SoftmaxWeight{});
  else if (kind == Kind::softmax1)
    call(Softmax1Weight{});
  else if (kind == Kind::softpick)
    call(SoftpickWeight{});
  else
    call(SigmoidWeight{});
}

}  // namespace uvit::kernels::cuda
