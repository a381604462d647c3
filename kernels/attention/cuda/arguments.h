#pragma once
// Arguments of the CUDA attention kernels, passed by value. A head is the pair (b, h), numbered b * H + h; a row of all heads is head * L + i.
#include <cstdint>

#include "kernels/attention/params.h"

namespace uvit::kernels::cuda {

/// out += factor * weight[h] * data[head * head_step + row * row_step], contiguous rows of floats, weight = 1 where null; nothing where data is null.
/// Rows are clamped from below: row = max(0, i + row_offset).
struct Addend {
  const float* data = nullptr;
  const float* weight = nullptr;  ///< [H]
  float factor = 1;
  std::int64_t head_step = 0;
  std::int32_t row_step = 0, row_offset = 0;
};

struct Problem {
  std::int32_t heads = 0, H = 0, L = 0, Lk = 0, D = 0, Dv = 0;  ///< heads = B * H
  bool causal = false;
  Kind kind = Kind::softmax;  ///< the law, for Variant::other
  float scale = 1;
  float scale_log2 = 0;  ///< scale * log2(e): t = scale_log2 * q k^T, so that e^s = 2^t. Forward of 16-bit tensors: positive, see prepare_queries
  std::int64_t rows = 0;  ///< B * H * L
};

/// o = first_factor softmax(t) v + second_factor softmax(-t) v2 + addend; one normaliser: o = w v + addend.
struct ForwardArguments {
  Problem problem;
  View q, k, v, v2;                   ///< v2.data null: v
  MutableView o;                      ///< not written where data is null
  float* stats = nullptr;             ///< [2 or 4, heads, L]: shift and log of the shifted sum, in base 2; float32: natural
  float* part[2] = {};                ///< [heads, L, Dv]: the products with softmax(t) and softmax(-t) apart
  const float* weight[2] = {};        ///< [H], 1 where null
  float sign = 1;                     ///< of the second half
  Addend addend;
};

/// What the backward kernel knows of a row (query): the normaliser and delta. One for each normaliser.
struct alignas(16) RowFacts {
  float hi, lo;  ///< log of the normaliser is hi + lo; softpick: the shift, and 1 over the shifted sum; sigmoid: log(Lk) and 0
  float unit;    ///< softpick: e^-shift
  float delta;
};

/// One gradient: view += sums * factor + addend, or `part` = sums * factor as floats [heads, length, width].
struct GradientOut {
  MutableView view;
  float* part = nullptr;
  Addend addend;
};

struct BackwardArguments {
  Problem problem;
  View q, k, v, dout;
  const RowFacts* facts[2] = {};  ///< [heads, L]
  GradientOut dq, dk, dv;
  const float* weight[2] = {};  ///< [H], 1 where null. One normaliser: a factor of all three gradients
  float sign = 1;               ///< of the second half, or with one normaliser of all
  std::int32_t key_blocks = 0, query_blocks = 0;  ///< a head
};

/// facts and delta = rowsum(dout * (o + addend)), or rowsum(dout * part).
struct RowsArguments {
  Problem problem;
  View o, dout;
  const float* part = nullptr;   ///< [heads, L, Dv], instead of o
  const float* stats = nullptr;  ///< [2, heads, L]
  Addend addend;
  RowFacts* facts = nullptr;
};

/// Running sums over a head's rows, in double. Forward: means[n - 1] = mean of the first n rows of x. Backward: sums[j] = sum of x_i / n_i over the
/// queries i that see key j.
struct PrefixArguments {
  View x;
  float* out = nullptr;  ///< [heads, rows or 1, Dv]
  std::int32_t H = 0, L = 0, Lk = 0, Dv = 0;
  bool causal = false, means = true;
};

/// out[h] = sign * sum over b and i of facts.delta, for one half.
struct WeightSumArguments {
  const RowFacts* facts[2] = {};
  float* out[2] = {};
  float sign[2] = {1, 1};
  std::int32_t B = 0, H = 0, L = 0;
};

}  // namespace uvit::kernels::cuda
