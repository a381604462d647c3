#pragma once
// Backward: a block owns a tile of rows and goes over the other side of the scores; no sum is shared between blocks. Two roles, one code:
//   keys     rows are keys, steps are queries: s^T = K Q^T, dP^T = V dO^T, dV += w^T dO, dK += ds^T Q
//   queries  rows are queries, steps are keys: s = Q K^T, dP = dO V^T, dQ += ds K
// s and dP become the weights and ds where they are, in registers, and those are the A fragments of the next product: nothing passes through shared
// memory. Each role makes s and dP anew, seven products where atomic sums of dQ would need five; in turn results are bit-equal from run to run.
#include <type_traits>

#include "kernels/attention/cuda/tile.cuh"
#include "kernels/attention/cuda/tile_size.h"

namespace uvit::kernels::cuda {

template <class T, int kWidth, Variant kVariant>
struct BackwardKernel {
  static constexpr BackwardTile kTile = backward_tile(kVariant, kWidth);
  static constexpr int kRows = kTile.rows(), kStep = kTile.step, kThreads = kTile.warps * 32;
  static constexpr int kHalves = kVariant == Variant::dual ? 2 : 1;
  static constexpr int kStageBytes = 2 * kStep * kWidth * int{sizeof(T)} + kHalves * kStep * int{sizeof(RowFacts)};
  /// The two tensors of the owned rows, then two stages of the two of the other side and the facts of its rows.
  static constexpr int kSharedBytes = 2 * kRows * kWidth * int{sizeof(T)} + 2 * kStageBytes;
  using Scores = float[1][kStep / 8][4];
  using Sums = float[1][kWidth / 8][4];

  const BackwardArguments& a;
  const Problem& p;
  unsigned char* shared;
  int b, h, head, block, warp_row, g, t;  // warp_row: the warp's first row, in the block
  float factor[kHalves];                  // weights of the halves

  UVIT_DEVICE BackwardKernel(const BackwardArguments& arguments, unsigned char* shared_memory)
      : a(arguments), p(arguments.problem), shared(shared_memory) {
    const int blocks = a.key_blocks + a.query_blocks, thread = arch::thread_index();
    head = arch::block_index(0) / blocks;
    block = arch::block_index(0) - head * blocks;
    b = head / p.H, h = head - b * p.H;
    warp_row = (thread >> 5) * 16, g = (thread & 31) >> 2, t = thread & 3;
    UVIT_UNROLL
    for (int half = 0; half < kHalves; ++half)
      factor[half] = (a.weight[half] == nullptr ? 1.0f : a.weight[half][h]) * (half == kHalves - 1 ? a.sign : 1.0f);
  }

  UVIT_DEVICE T* own_tile(int n) const { return reinterpret_cast<T*>(shared) + n * kRows * kWidth; }
  UVIT_DEVICE unsigned char* stage(int tile) const { return reinterpret_cast<unsigned char*>(own_tile(2)) + (tile & 1) * kStageBytes; }
  UVIT_DEVICE T* step_tile(int tile, int n) const { return reinterpret_cast<T*>(stage(tile)) + n * kStep * kWidth; }
  UVIT_DEVICE RowFacts* step_facts(int tile, int half) const {
    return reinterpret_cast<RowFacts*>(stage(tile) + 2 * kStep * kWidth * int{sizeof(T)}) + half * kStep;
  }

  /// One side: two tensors whose rows go together.
  struct Side {
    const T *first, *second;
    std::int64_t first_stride, second_stride;
    int length;
  };
  UVIT_DEVICE Side keys_side() const { return {head_of<T>(a.k, b, h), head_of<T>(a.v, b, h), a.k.stride_l, a.v.stride_l, p.Lk}; }
  UVIT_DEVICE Side queries_side() const { return {head_of<T>(a.q, b, h), head_of<T>(a.dout, b, h), a.q.stride_l, a.dout.stride_l, p.L}; }

  template <bool kKeys>
  UVIT_DEVICE void load_step(const Side& side, int tile) {
    load_tile<T, kWidth, kStep, kThreads>(step_tile(tile, 0), side.first, side.first_stride, tile * kStep, side.length, p.D);
    load_tile<T, kWidth, kStep, kThreads>(step_tile(tile, 1), side.second, side.second_stride, tile * kStep, side.length, p.Dv);
    if (!kKeys) return;
    const int i = arch::thread_index();
    UVIT_UNROLL
    for (int half = 0; half < kHalves; ++half) {
      // Rows beyond the last get zeros; their q and dO are 0 too, so that any finite weight adds nothing.
      const bool valid = tile * kStep + i < p.L;
      const RowFacts* from = a.facts[half] + static_cast<std::int64_t>(head) * p.L;
      if (i < kStep) arch::cp_async_16(step_facts(tile, half) + i, valid ? from + tile * kStep + i : from, valid);
    }
  }

  UVIT_DEVICE static void differentiate(Kind kind, float x, const RowFacts& f, float dp, float& w, float& ds) {
    if constexpr (kVariant == Variant::softmax) SoftmaxWeight::backward<DeviceMath>(x, f.hi, f.lo, f.unit, f.delta, dp, w, ds);
    if constexpr (kVariant == Variant::cog) CogWeight::backward<DeviceMath>(x, f.hi, f.lo, f.unit, f.delta, dp, w, ds);
    if constexpr (kVariant == Variant::other) {
      if (kind == Kind::softpick)
        SoftpickWeight::backward<DeviceMath>(x, f.hi, f.lo, f.unit, f.delta, dp, w, ds);
      else
        SigmoidWeight::backward<DeviceMath>(x, f.hi, f.lo, f.unit, f.delta, dp, w, ds);
    }
  }
  /// s, dp (raw products) become weights and ds. facts: of the element's query, one a half.
  UVIT_DEVICE void differentiate_element(float& s, float& dp, const RowFacts (&facts)[kHalves], float gate) const {
    const float x = s * p.scale_log2;
    float w, ds;
    if constexpr (kHalves == 1) {
      differentiate(p.kind, x, facts[0], dp, w, ds);
    } else {
      float w2, ds2;
      SoftmaxWeight::backward<DeviceMath>(x, facts[0].hi, facts[0].lo, 0, facts[0].delta, dp, w, ds);
      SoftmaxWeight::backward<DeviceMath>(-x, facts[1].hi, facts[1].lo, 0, facts[1].delta, dp, w2, ds2);
      w = factor[0] * w + factor[1] * w2;
      ds = factor[0] * ds - factor[1] * ds2;
    }
    s = gate == 0 ? w : 0;
    dp = gate == 0 ? ds : 0;
  }

  template <bool kKeys, bool kMasked>
  UVIT_DEVICE void differentiate_tile(Scores& s, Scores& dp, int row0, int tile, const RowFacts (&row_facts)[2][kHalves]) {
    UVIT_UNROLL
    for (int n = 0; n < kStep / 8; ++n)
      UVIT_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int in_tile = 8 * n + 2 * t + c, column = tile * kStep + in_tile;
        RowFacts column_facts[kHalves];
        if (kKeys) {
          UVIT_UNROLL
          for (int half = 0; half < kHalves; ++half) column_facts[half] = step_facts(tile, half)[in_tile];
        }
        UVIT_UNROLL
        for (int r = 0; r < 2; ++r) {
          const int row = row0 + g + 8 * r;
          float gate = 0;
          if (kMasked) gate = arch::masked(0, kKeys ? row < visible_keys(p, column) : column < visible_keys(p, row));
          if (kKeys)
            differentiate_element(s[0][n][2 * r + c], dp[0][n][2 * r + c], column_facts, gate);
          else
            differentiate_element(s[0][n][2 * r + c], dp[0][n][2 * r + c], row_facts[r], gate);
        }
      }
  }

  using Rows = RowFragments<T, kWidth, 1, kTile.keep_rows>;

  template <bool kKeys, bool kMasked>
  UVIT_DEVICE void step(const Rows (&rows)[2], Sums& first, Sums& second, int row0, int tile, const RowFacts (&row_facts)[2][kHalves]) {
    constexpr int kPairs = kStep / 16;
    Scores s, dp;
    multiply_rows<T, kWidth, 1, kStep>(s, rows[0], step_tile(tile, 0), kPairs);
    multiply_rows<T, kWidth, 1, kStep>(dp, rows[1], step_tile(tile, 1), kPairs);
    differentiate_tile<kKeys, kMasked>(s, dp, row0, tile, row_facts);
    std::uint32_t weights[1][kPairs][4];
    if (kKeys) {
      to_fragments<T>(weights[0], s[0]);
      accumulate<T, kWidth, 1, 1, kPairs>(&second, &weights, step_tile(tile, 1), nullptr, kPairs);
    }
    to_fragments<T>(weights[0], dp[0]);
    accumulate<T, kWidth, 1, 1, kPairs>(&first, &weights, step_tile(tile, 0), nullptr, kPairs);
  }

  /// The steps [begin, end) that a block has to take; of them [full_begin, full_end) need no mask.
  struct Steps {
    int begin, full_begin, full_end, end;
  };
  UVIT_DEVICE Steps key_role_steps(int row0) const {
    const int end = (p.L + kStep - 1) / kStep;
    if (!p.causal) return {0, 0, end, end};
    const int first = row0 + p.L - p.Lk, all = first + kRows - 1;  // the first query that sees a key of the tile; that sees all of them
    const int begin = first <= 0 ? 0 : first / kStep, full = all <= 0 ? 0 : (all + kStep - 1) / kStep;
    return {begin < end ? begin : end, full < end ? full : end, end, end};
  }
  UVIT_DEVICE Steps query_role_steps(int row0) const {
    const int last = row0 + kRows < p.L ? row0 + kRows - 1 : p.L - 1;
    return {0, 0, visible_keys(p, row0) / kStep, (visible_keys(p, last) + kStep - 1) / kStep};
  }

  UVIT_DEVICE static void clear(Sums& sums) {
    UVIT_UNROLL
    for (int n = 0; n < kWidth / 8; ++n)
      UVIT_UNROLL
      for (int e = 0; e < 4; ++e) sums[0][n][e] = 0;
  }

  template <bool kKeys>
  UVIT_DEVICE void run_role(int row0, const Side& own, const Side& other, const Steps& steps) {
    load_tile<T, kWidth, kRows, kThreads>(own_tile(0), own.first, own.first_stride, row0, own.length, p.D);
    load_tile<T, kWidth, kRows, kThreads>(own_tile(1), own.second, own.second_stride, row0, own.length, p.Dv);
    if (steps.begin < steps.end) load_step<kKeys>(other, steps.begin);
    arch::cp_async_commit();
    arch::cp_async_wait<0>();
    arch::sync_block();
    Rows rows[2];
    rows[0].load(own_tile(0), warp_row);
    rows[1].load(own_tile(1), warp_row);
    const bool busy = row0 + warp_row < own.length;
    RowFacts facts[2][kHalves];
    if (!kKeys) load_row_facts(facts, row0 + warp_row);
    Sums first, second;
    clear(first);
    clear(second);
    auto take = [&](int tile, auto masked) {
      arch::cp_async_wait<0>();
      arch::sync_block();  // the step is there for all, and the other stage is read no more
      if (tile + 1 < steps.end) load_step<kKeys>(other, tile + 1);
      arch::cp_async_commit();
      if (busy) step<kKeys, decltype(masked)::value>(rows, first, second, row0 + warp_row, tile, facts);
    };
    int tile = steps.begin;
    if (kKeys)
      for (; tile < steps.full_begin; ++tile) take(tile, std::true_type{});
    for (; tile < steps.full_end; ++tile) take(tile, std::false_type{});
    if (!kKeys)
      for (; tile < steps.end; ++tile) take(tile, std::true_type{});
    if (!busy) return;
    const float common = kHalves == 1 ? factor[0] : 1.0f;
    store(kKeys ? a.dk : a.dq, first, row0 + warp_row, own.length, p.D, p.scale * common);
    if (kKeys) store(a.dv, second, row0 + warp_row, own.length, p.Dv, common);
  }
  UVIT_DEVICE void load_row_facts(RowFacts (&facts)[2][kHalves], int row0) const {
    UVIT_UNROLL
    for (int r = 0; r < 2; ++r)
      UVIT_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        const int row = row0 + g + 8 * r;
        facts[r][half] = a.facts[half][static_cast<std::int64_t>(head) * p.L + (row < p.L ? row : p.L - 1)];
      }
  }
  UVIT_DEVICE void store(const GradientOut& out, const Sums& sums, int row0, int length, int width, float scale) const {
    UVIT_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = row0 + g + 8 * r;
      if (row >= length) continue;
      UVIT_UNROLL
      for (int n = 0; n < kWidth / 8; ++n) {
        const int column = 8 * n + 2 * t;
        if (column >= width) continue;
        const float lo = scale * sums[0][n][2 * r], hi = scale * sums[0][n][2 * r + 1];
        if (out.part != nullptr) {
          float* to = out.part + (static_cast<std::int64_t>(head) * length + row) * width + column;
          to[0] = lo, to[1] = hi;
        } else {
          const float add_lo = addend_at(out.addend, head, h, row, column), add_hi = addend_at(out.addend, head, h, row, column + 1);
          T* to = head_of<T>(out.view, b, h) + row * out.view.stride_l + column;
          arch::store_global<1>(to, {{arch::pack2<T>(lo + add_lo, hi + add_hi)}});
        }
      }
    }
  }

  UVIT_DEVICE void run() {
    if (block < a.key_blocks)
      run_role<true>(block * kRows, keys_side(), queries_side(), key_role_steps(block * kRows));
    else
      run_role<false>((block - a.key_blocks) * kRows, queries_side(), keys_side(), query_role_steps((block - a.key_blocks) * kRows));
  }
};

template <class T, int kWidth, Variant kVariant>
UVIT_KERNEL((BackwardKernel<T, kWidth, kVariant>::kThreads), (backward_tile(kVariant, kWidth).blocks_per_sm))
void attention_backward_kernel(const BackwardArguments arguments) {
  UVIT_SHARED_MEMORY(shared);
  BackwardKernel<T, kWidth, kVariant> kernel(arguments, shared);
  kernel.run();
}

}  // namespace uvit::kernels::cuda
