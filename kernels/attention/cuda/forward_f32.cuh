#pragma once
// Forward of float32 tensors; see forward.cuh for the method. The variant is a run-time argument.
#include "kernels/attention/cuda/tile_f32.cuh"

namespace uvit::kernels::cuda {

template <int kWidth>
struct ForwardF32 {
  static constexpr int kR = kF32ForwardRows, kC = kF32Keys, kRows = 16 * kR, kKeys = 16 * kC;
  /// Q, K, V, the weights and, with a second value, V2.
  static constexpr int shared_bytes(bool second_value) {
    return 4 * (kRows * kWidth + (second_value ? 3 : 2) * kKeys * kWidth + kRows * kWeightStride<kC>);
  }
  using Sums = float[kR][kWidth / 64][4];

  const ForwardArguments& a;
  const Problem& p;
  const Variant variant;
  float *q, *k, *weights, *v, *v2;  // tiles
  int b, h, head, row0, ty, tx;
  Sums sums[2];
  float largest[2][kR], sum[2][kR];

  UVIT_DEVICE ForwardF32(const ForwardArguments& arguments, Variant which, unsigned char* shared)
      : a(arguments), p(arguments.problem), variant(which), q(reinterpret_cast<float*>(shared)) {
    const int blocks = (p.L + kRows - 1) / kRows;
    head = arch::block_index(0) / blocks;
    row0 = (arch::block_index(0) - head * blocks) * kRows;
    b = head / p.H, h = head - b * p.H;
    ty = arch::thread_index() >> 4, tx = arch::thread_index() & 15;
    k = q + kRows * kWidth, weights = k + kKeys * kWidth, v = weights + kRows * kWeightStride<kC>;
    v2 = a.v2.data == nullptr ? v : v + kKeys * kWidth;
    const bool from_zero = variant == Variant::other && p.kind != Kind::sigmoid;
    UVIT_UNROLL
    for (int half = 0; half < 2; ++half)
      UVIT_UNROLL
      for (int i = 0; i < kR; ++i) {
        largest[half][i] = from_zero ? 0 : -INFINITY, sum[half][i] = 0;
        UVIT_UNROLL
        for (int n = 0; n < kWidth / 64; ++n)
          UVIT_UNROLL
          for (int e = 0; e < 4; ++e) sums[half][i][n][e] = 0;
      }
  }
  UVIT_DEVICE int row(int i) const { return row0 + ty + 16 * i; }
  UVIT_DEVICE float constant_shift() const { return arch::log(static_cast<float>(p.Lk)); }

  /// Scores (t) to weights, for one row; brings largest, sum and sums up to date.
  template <class Weight>
  UVIT_DEVICE void weigh(float (&t)[kC], int half, int i, int key0) {
    float gate[kC], top = largest[half][i], shift = constant_shift(), unit = 0;
    UVIT_UNROLL
    for (int j = 0; j < kC; ++j) {
      gate[j] = arch::masked(0, key0 + tx + 16 * j < visible_keys(p, row(i)));
      top = fmaxf(top, Weight::template key<AccurateMath>(t[j]) + gate[j]);
    }
    if (Weight::kHasShift) {
      top = row_max_f32(top);
      shift = top == -INFINITY ? 0 : top;
      const float correction = arch::exp(largest[half][i] - shift);
      unit = arch::exp(-shift);
      largest[half][i] = top;
      sum[half][i] *= correction;
      UVIT_UNROLL
      for (int n = 0; n < kWidth / 64; ++n)
        UVIT_UNROLL
        for (int e = 0; e < 4; ++e) sums[half][i][n][e] *= correction;
    }
    UVIT_UNROLL
    for (int j = 0; j < kC; ++j) {
      float w;
      const float g = Weight::template forward<AccurateMath>(t[j], shift, unit, w);
      t[j] = gate[j] == 0 ? w : 0;
      sum[half][i] += gate[j] == 0 ? g : 0;
    }
  }

  UVIT_DEVICE void step(int key0, int half) {
    float t[kR][kC];
    multiply_f32<kWidth>(t, q, k);
    const float scale = half == 0 ? p.scale : -p.scale;
    UVIT_UNROLL
    for (int i = 0; i < kR; ++i) {
      UVIT_UNROLL
      for (int j = 0; j < kC; ++j) t[i][j] *= scale;
    }
    with_weight(variant, p.kind, [&](auto weight) {
      UVIT_UNROLL
      for (int i = 0; i < kR; ++i) weigh<decltype(weight)>(t[i], half, i, key0);
    });
    arch::sync_block();  // the weights of the half before are read no more
    put_f32(weights, t);
    arch::sync_block();
    if (half == 0)
      accumulate_f32<kWidth, kR, kC>(sums[0], weights, v);
    else
      accumulate_f32<kWidth, kR, kC>(sums[1], weights, v2);
  }

  UVIT_DEVICE void run() {
    const int last = row0 + kRows < p.L ? row0 + kRows - 1 : p.L - 1, end = visible_keys(p, last);
    load_f32<kWidth, kRows>(q, head_of<float>(a.q, b, h), a.q.stride_l, row0, p.L, p.D);
    for (int key0 = 0; key0 < end; key0 += kKeys) {
      arch::sync_block();
      load_f32<kWidth, kKeys>(k, head_of<float>(a.k, b, h), a.k.stride_l, key0, p.Lk, p.D);
      load_f32<kWidth, kKeys>(v, head_of<float>(a.v, b, h), a.v.stride_l, key0, p.Lk, p.Dv);
      if (a.v2.data != nullptr) load_f32<kWidth, kKeys>(v2, head_of<float>(a.v2, b, h), a.v2.stride_l, key0, p.Lk, p.Dv);
      arch::sync_block();
      step(key0, 0);
      if (variant == Variant::dual) step(key0, 1);
    }
    UVIT_UNROLL
    for (int i = 0; i < kR; ++i) {
      const float first = finish_row(0, i), second = variant == Variant::dual ? finish_row(1, i) : 0;
      if (row(i) < p.L) store_row(i, first, second);
    }
  }

  /// Writes the row's statistics; returns 1 / Z, or 0 for a row that sees no key.
  UVIT_DEVICE float finish_row(int half, int i) const {
    const bool visible = visible_keys(p, row(i)) > 0, is_sigmoid = variant == Variant::other && p.kind == Kind::sigmoid;
    const float top = half == 0 ? largest[0][i] : largest[1][i], shift = is_sigmoid ? constant_shift() : top == -INFINITY ? 0 : top;
    float z = row_sum_f32(half == 0 ? sum[0][i] : sum[1][i]);
    with_weight(variant, p.kind, [&](auto weight) { z += decltype(weight)::constant(arch::exp(-shift)); });
    if (a.stats != nullptr && tx == 0 && row(i) < p.L) {
      float* to = a.stats + 2 * half * p.rows + static_cast<std::int64_t>(head) * p.L + row(i);
      to[0] = visible ? shift : -INFINITY;
      to[p.rows] = visible && !is_sigmoid ? arch::log(z) : 0;
    }
    return visible ? 1 / z : 0;
  }
  UVIT_DEVICE void store_row(int i, float first, float second) const {
    const bool dual = variant == Variant::dual;
    const float weight0 = dual && a.weight[0] != nullptr ? a.weight[0][h] : 1, weight1 = a.sign * (a.weight[1] != nullptr ? a.weight[1][h] : 1);
    const std::int64_t part_row = (static_cast<std::int64_t>(head) * p.L + row(i)) * p.Dv;
    UVIT_UNROLL
    for (int n = 0; n < kWidth / 64; ++n)
      UVIT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int column = 4 * (tx + 16 * n) + e;
        if (column >= p.Dv) continue;
        const float x = sums[0][i][n][e] * first, y = sums[1][i][n][e] * second;
        if (a.part[0] != nullptr) a.part[0][part_row + column] = x;
        if (a.part[1] != nullptr) a.part[1][part_row + column] = y;
        if (a.o.data == nullptr) continue;
        const float add = first == 0 ? 0 : addend_at(a.addend, head, h, row(i), column);
        (head_of<float>(a.o, b, h) + row(i) * a.o.stride_l)[column] = weight0 * x + (dual ? weight1 * y : 0) + add;
      }
  }
};

template <int kWidth>
UVIT_KERNEL(kF32Threads, 1)
void attention_forward_f32_kernel(const ForwardArguments arguments, Variant variant) {
  UVIT_SHARED_MEMORY(shared);
  ForwardF32<kWidth> kernel(arguments, variant, shared);
  kernel.run();
}

}  // namespace uvit::kernels::cuda
