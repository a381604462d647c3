#pragma once
// Backward of float32 tensors; see backward.cuh for the two roles of a block. The variant is a run-time argument.
#include "kernels/attention/cuda/tile_f32.cuh"

namespace uvit::kernels::cuda {

template <int kWidth>
struct BackwardF32 {
  static constexpr int kR = kF32BackwardRows, kC = kF32Keys, kRows = 16 * kR, kStep = 16 * kC;
  /// The two tensors of the owned rows, the two of the other side, weights and ds.
  static constexpr int kSharedBytes = 4 * (2 * (kRows + kStep) * kWidth + 2 * kRows * kWeightStride<kC>);
  using Sums = float[kR][kWidth / 64][4];

  const BackwardArguments& a;
  const Problem& p;
  const Variant variant;
  float* own[2];
  float* other[2];
  float* weights[2];
  int b, h, head, block, ty, tx;
  float factor[2];

  UVIT_DEVICE BackwardF32(const BackwardArguments& arguments, Variant which, unsigned char* shared)
      : a(arguments), p(arguments.problem), variant(which) {
    const int blocks = a.key_blocks + a.query_blocks;
    head = arch::block_index(0) / blocks;
    block = arch::block_index(0) - head * blocks;
    b = head / p.H, h = head - b * p.H;
    ty = arch::thread_index() >> 4, tx = arch::thread_index() & 15;
    own[0] = reinterpret_cast<float*>(shared), own[1] = own[0] + kRows * kWidth;
    other[0] = own[1] + kRows * kWidth, other[1] = other[0] + kStep * kWidth;
    weights[0] = other[1] + kStep * kWidth, weights[1] = weights[0] + kRows * kWeightStride<kC>;
    const bool dual = variant == Variant::dual;
    factor[0] = (a.weight[0] == nullptr ? 1.0f : a.weight[0][h]) * (dual ? 1.0f : a.sign);
    factor[1] = (a.weight[1] == nullptr ? 1.0f : a.weight[1][h]) * a.sign;
  }

  UVIT_DEVICE void load_keys(float* const (&tiles)[2], int first) const {
    load_f32<kWidth, kRows>(tiles[0], head_of<float>(a.k, b, h), a.k.stride_l, first, p.Lk, p.D);
    load_f32<kWidth, kRows>(tiles[1], head_of<float>(a.v, b, h), a.v.stride_l, first, p.Lk, p.Dv);
  }
  UVIT_DEVICE void load_queries(float* const (&tiles)[2], int first) const {
    load_f32<kWidth, kRows>(tiles[0], head_of<float>(a.q, b, h), a.q.stride_l, first, p.L, p.D);
    load_f32<kWidth, kRows>(tiles[1], head_of<float>(a.dout, b, h), a.dout.stride_l, first, p.L, p.Dv);
  }

  UVIT_DEVICE void differentiate(float& s, float& dp, int query, int key) const {
    const bool inside = query < p.L && arch::masked(0, key < visible_keys(p, query)) == 0;
    const std::int64_t row = static_cast<std::int64_t>(head) * p.L + (query < p.L ? query : p.L - 1);
    const RowFacts f = a.facts[0][row];
    const float x = s * p.scale;
    float w = 0, ds = 0;
    with_weight(variant, p.kind, [&](auto weight) {
      decltype(weight)::template backward<AccurateMath>(x, f.hi, f.lo, f.unit, f.delta, dp, w, ds);
    });
    if (variant == Variant::dual) {
      const RowFacts f2 = a.facts[1][row];
      float w2, ds2;
      SoftmaxWeight::backward<AccurateMath>(-x, f2.hi, f2.lo, 0, f2.delta, dp, w2, ds2);
      w = factor[0] * w + factor[1] * w2, ds = factor[0] * ds - factor[1] * ds2;
    }
    s = inside ? w : 0;
    dp = inside ? ds : 0;
  }

  /// first += ds x other[0], second += w x other[1], over the other side's rows from `begin` to `end`.
  template <bool kKeys>
  UVIT_DEVICE void run_role(int row0, int begin, int end, Sums& first, Sums& second) const {
    for (int at = begin; at < end; at += kStep) {
      arch::sync_block();
      if (kKeys)
        load_queries(other, at);
      else
        load_keys(other, at);
      arch::sync_block();
      float s[kR][kC], dp[kR][kC];
      multiply_f32<kWidth>(s, own[0], other[0]);
      multiply_f32<kWidth>(dp, own[1], other[1]);
      UVIT_UNROLL
      for (int i = 0; i < kR; ++i)
        UVIT_UNROLL
        for (int j = 0; j < kC; ++j) {
          const int row = row0 + ty + 16 * i, column = at + tx + 16 * j;
          differentiate(s[i][j], dp[i][j], kKeys ? column : row, kKeys ? row : column);
        }
      put_f32(weights[0], dp);
      if (kKeys) put_f32(weights[1], s);
      arch::sync_block();
      accumulate_f32<kWidth, kR, kC>(first, weights[0], other[0]);
      if (kKeys) accumulate_f32<kWidth, kR, kC>(second, weights[1], other[1]);
    }
  }

  UVIT_DEVICE void run() {
    static_assert(kRows == kStep, "load_keys and load_queries serve both sides");
    const bool keys_role = block < a.key_blocks;
    const int row0 = (keys_role ? block : block - a.key_blocks) * kRows;
    Sums first = {}, second = {};
    const float common = variant == Variant::dual ? 1.0f : factor[0];
    if (keys_role) {
      const int begin = p.causal && row0 + p.L - p.Lk > 0 ? row0 + p.L - p.Lk : 0;  // the first query that sees a key of the block
      load_keys(own, row0);
      run_role<true>(row0, begin, p.L, first, second);
      store(a.dk, first, row0, p.Lk, p.D, p.scale * common);
      store(a.dv, second, row0, p.Lk, p.Dv, common);
    } else {
      const int last = row0 + kRows < p.L ? row0 + kRows - 1 : p.L - 1;
      load_queries(own, row0);
      run_role<false>(row0, 0, visible_keys(p, last), first, second);
      store(a.dq, first, row0, p.L, p.D, p.scale * common);
    }
  }

  UVIT_DEVICE void store(const GradientOut& out, const Sums& sums, int row0, int length, int width, float scale) const {
    UVIT_UNROLL
    for (int i = 0; i < kR; ++i) {
      const int row = row0 + ty + 16 * i;
      if (row >= length) continue;
      UVIT_UNROLL
      for (int n = 0; n < kWidth / 64; ++n)
        UVIT_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int column = 4 * (tx + 16 * n) + e;
          if (column >= width) continue;
          const float x = scale * sums[i][n][e];
          if (out.part != nullptr)
            out.part[(static_cast<std::int64_t>(head) * length + row) * width + column] = x;
          else
            (head_of<float>(out.view, b, h) + row * out.view.stride_l)[column] = x + addend_at(out.addend, head, h, row, column);
        }
    }
  }
};

template <int kWidth>
UVIT_KERNEL(kF32Threads, 1)
void attention_backward_f32_kernel(const BackwardArguments arguments, Variant variant) {
  UVIT_SHARED_MEMORY(shared);
  BackwardF32<kWidth> kernel(arguments, variant, shared);
  kernel.run();
}

}  // namespace uvit::kernels::cuda
