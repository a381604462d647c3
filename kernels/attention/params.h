#pragma once
#include <cstdint>

#include "kernels/attention/kinds.h"

namespace uvit::kernels {

enum class Dtype : std::int32_t { f32, bf16, f16 };  ///< f16: the CUDA kernels only

/// A tensor [B, H, length, width] in memory: the last stride is 1, the others are free and count elements.
/// Rows need no alignment beyond that of their element.
struct View {
  const void* data = nullptr;
  std::int64_t stride_b = 0, stride_h = 0, stride_l = 0;
};
struct MutableView {
  void* data = nullptr;
  std::int64_t stride_b = 0, stride_h = 0, stride_l = 0;
};

/// Everything an attention kernel needs to know. Forward reads the inputs and writes o and stats; backward reads the inputs, o, dout and stats
/// and writes the gradients. No output may overlap an input or another output (strided views that interleave are fine).
struct AttentionParams {
  Kind kind = Kind::softmax;
  Dtype dtype = Dtype::f32;  ///< of q, k, v, q2, k2, v2, o, dout and their gradients
  bool causal = false;       ///< key j is visible to query i iff j <= i + Lk - L; a row with no visible key gives 0 and zero gradients
  float scale = 1;
  std::int64_t B = 0, H = 0, L = 0, Lk = 0;  ///< batch, heads, queries, keys
  std::int64_t D = 0, Dv = 0;                ///< width of q and k; width of v and o: each a multiple of 8 up to 128

  View q, k, v;                    ///< q [B, H, L, D]; k [B, H, Lk, D]; v [B, H, Lk, Dv]
  View q2, k2;                     ///< kind diff
  View v2;                         ///< kind dipole
  const float* w_plus = nullptr;   ///< [H], kinds sda_weighted and dipole
  const float* w_minus = nullptr;  ///< [H], kinds sda_weighted, dipole and diff

  MutableView o;  ///< [B, H, L, Dv]: written by forward, read by backward
  /// [stats_per_row(kind), B, H, L]: the log of the row's normaliser as a sum of two floats (the row's shift, and the log of the shifted sum: one
  /// float alone loses 2^-12 at scores of 1e4), then the same for the second normaliser. A row with no visible key has -inf and 0.
  /// Written by forward when not null; needed by backward. Each back end reads only its own: the CUDA kernels keep base-2 logarithms for 16-bit tensors.
  float* stats = nullptr;

  /// CUDA only: [2, B, H, L, Dv], of attention_parts_floats_cuda(params) floats: softmax(t1) v and softmax(t2) v' apart, for kinds with two
  /// normalisers. Written by forward and read by backward when not null; where it is null backward computes it again.
  float* parts = nullptr;

  View dout;                  ///< [B, H, L, Dv]
  MutableView dq, dk, dv;     ///< as q, k, v
  MutableView dq2, dk2, dv2;  ///< as q2, k2, v2
  float* dw_plus = nullptr;   ///< [H]
  float* dw_minus = nullptr;  ///< [H]
};

}  // namespace uvit::kernels
