#pragma once
// Forward: a block takes a tile of queries of one head and goes over the keys with the online softmax. Tiles of keys that every query of the block
// sees come first, in a loop without masks; the last ones, ragged or cut by causality, follow in a copy of it with masks.
#include <type_traits>

#include "kernels/attention/cuda/tile.cuh"
#include "kernels/attention/cuda/tile_size.h"

namespace uvit::kernels::cuda {

/// The running statistics of the rows a thread has a share of: rows 16 m + g + 8 r of its warp.
template <int kM>
struct RowState {
  float largest[kM][2];  ///< of key(x), over the row; x = raw products
  float sum[kM][2];      ///< of g(t) 2^-shift, over the thread's own columns
};

/// Where a tile of scores lies, for masks: row (m, r) sees the keys below limit[m][r].
template <int kM>
struct TileMask {
  int limit[kM][2];
  int column;  ///< of the thread's first element
};

UVIT_DEVICE float shift_of(float largest, float scale_log2) { return largest == -INFINITY ? 0 : largest * scale_log2; }

/// Makes weights f(t) 2^-shift of raw products x, t = scale_log2 x (kFlip: of -x), as fragments of the next product; brings largest and sum up to
/// date; correction: what earlier sums are to be multiplied by.
template <class T, class Weight, bool kMasked, bool kFlip, int kM, int kN8>
UVIT_DEVICE void weigh(std::uint32_t (&weights)[kM][kN8 / 2][4], const float (&x)[kM][kN8][4], RowState<kM>& state, float (&correction)[kM][2],
                       float scale_log2, float constant_shift, const TileMask<kM>& mask) {
  UVIT_UNROLL
  for (int m = 0; m < kM; ++m)
    UVIT_UNROLL
    for (int r = 0; r < 2; ++r) {
      float gate[kN8][2];  // 0, or -infinity where masked
      if (kMasked) {
        UVIT_UNROLL
        for (int n = 0; n < kN8; ++n)
          UVIT_UNROLL
          for (int e = 0; e < 2; ++e) gate[n][e] = arch::masked(0, mask.column + 8 * n + e < mask.limit[m][r]);
      }
      float largest = state.largest[m][r], shift = constant_shift, unit = 0;
      if (Weight::kHasShift) {
        UVIT_UNROLL
        for (int n = 0; n < kN8; ++n)
          UVIT_UNROLL
          for (int e = 0; e < 2; ++e) {
            const float key = Weight::template key<DeviceMath>(kFlip ? -x[m][n][2 * r + e] : x[m][n][2 * r + e]);
            largest = fmaxf(largest, kMasked ? key + gate[n][e] : key);
          }
        largest = fmaxf(largest, arch::shuffle_xor(largest, 1));
        largest = fmaxf(largest, arch::shuffle_xor(largest, 2));
        shift = shift_of(largest, scale_log2);
        correction[m][r] = arch::exp2_fast(state.largest[m][r] * scale_log2 - shift);
        if (Weight::kTakesSum) unit = arch::exp2_fast(-shift);
        state.largest[m][r] = largest;
        state.sum[m][r] *= correction[m][r];
      }
      UVIT_UNROLL
      for (int n = 0; n < kN8; ++n) {
        float g[2], w[2];
        UVIT_UNROLL
        for (int e = 0; e < 2; ++e) {
          const float at = x[m][n][2 * r + e];
          g[e] = Weight::template forward<DeviceMath>((kFlip ? -at : at) * scale_log2, shift, unit, w[e]);
          if (kMasked && gate[n][e] != 0) g[e] = w[e] = 0;
          state.sum[m][r] += g[e];
        }
        // Cog's signs, from the float32 scores, are set in both halves at once.
        fragment_at(weights[m], n, r) = std::is_same_v<Weight, CogWeight>
                                            ? with_signs(arch::pack2<T>(g[0], g[1]), x[m][n][2 * r], x[m][n][2 * r + 1])
                                            : arch::pack2<T>(w[0], w[1]);
      }
    }
}

template <int kM, int kD8>
UVIT_DEVICE void rescale(float (&sums)[kM][kD8][4], const float (&correction)[kM][2]) {
  UVIT_UNROLL
  for (int m = 0; m < kM; ++m)
    UVIT_UNROLL
    for (int n = 0; n < kD8; ++n)
      UVIT_UNROLL
      for (int e = 0; e < 4; ++e) sums[m][n][e] *= correction[m][e >> 1];
}

template <class T, int kWidth, Variant kVariant>
struct ForwardKernel {
  static constexpr ForwardTile kTile = forward_tile(kVariant, kWidth);
  static constexpr int kM = kTile.row_tiles, kKeys = kTile.keys, kRows = kTile.rows(), kThreads = kTile.warps * 32;
  static constexpr int kHalves = kVariant == Variant::dual ? 2 : 1;
  static constexpr int kStageElements = kKeys * kWidth;
  /// Q, then two stages of K, V and, with a second value, V2.
  static constexpr int shared_bytes(bool second_value) { return (kRows * kWidth + 2 * (second_value ? 3 : 2) * kStageElements) * int{sizeof(T)}; }

  const ForwardArguments& a;
  const Problem& p;
  int b, h, head, row0, warp_row, g, t;  // row0: first query of the block; warp_row: of the warp, in the block
  T *q_tile, *stages;
  const T *k, *v, *v2;
  RowFragments<T, kWidth, kM, kTile.keep_rows> q;
  float sums[kHalves][kM][kWidth / 8][4];
  RowState<kM> state[kHalves];

  UVIT_DEVICE ForwardKernel(const ForwardArguments& arguments, unsigned char* shared) : a(arguments), p(arguments.problem) {
    const int blocks = (p.L + kRows - 1) / kRows, thread = arch::thread_index();
    head = arch::block_index(0) / blocks;
    row0 = (arch::block_index(0) - head * blocks) * kRows;
    b = head / p.H, h = head - b * p.H;
    warp_row = (thread >> 5) * kM * 16, g = (thread & 31) >> 2, t = thread & 3;
    q_tile = reinterpret_cast<T*>(shared);
    stages = q_tile + kRows * kWidth;
    k = head_of<T>(a.k, b, h), v = head_of<T>(a.v, b, h), v2 = a.v2.data == nullptr ? nullptr : head_of<T>(a.v2, b, h);
    UVIT_UNROLL
    for (int half = 0; half < kHalves; ++half)
      UVIT_UNROLL
      for (int m = 0; m < kM; ++m) {
        UVIT_UNROLL
        for (int r = 0; r < 2; ++r) state[half].largest[m][r] = zero_in_shift() ? 0 : -INFINITY, state[half].sum[m][r] = 0;
        UVIT_UNROLL
        for (int n = 0; n < kWidth / 8; ++n)
          UVIT_UNROLL
          for (int e = 0; e < 4; ++e) sums[half][m][n][e] = 0;
      }
  }
  UVIT_DEVICE bool zero_in_shift() const { return kVariant == Variant::other && p.kind != Kind::sigmoid; }
  UVIT_DEVICE int row(int m, int r) const { return row0 + warp_row + 16 * m + g + 8 * r; }
  UVIT_DEVICE bool warp_has_rows() const { return row0 + warp_row < p.L; }
  /// A scale that is not positive goes into q, by its sign bits or as zeros: the loop then takes maxima of raw products.
  UVIT_DEVICE void prepare_queries() {
    if (p.scale > 0) return;
    UVIT_UNROLL
    for (int i = 0; i < kRows * kWidth / 2 / kThreads; ++i) {
      unsigned char* at = reinterpret_cast<unsigned char*>(q_tile) + 4 * (i * kThreads + arch::thread_index());
      arch::Words<1> word = arch::load_shared<1>(at);
      word.w[0] = p.scale < 0 ? word.w[0] ^ 0x80008000u : 0;
      arch::store_shared<1>(at, word);
    }
  }
  UVIT_DEVICE void load_stage(int tile) {
    T* stage = stages + (tile & 1) * (v2 == nullptr ? 2 : 3) * kStageElements;
    load_tile<T, kWidth, kKeys, kThreads>(stage, k, a.k.stride_l, tile * kKeys, p.Lk, p.D);
    load_tile<T, kWidth, kKeys, kThreads>(stage + kStageElements, v, a.v.stride_l, tile * kKeys, p.Lk, p.Dv);
    if (kHalves == 2 && v2 != nullptr)
      load_tile<T, kWidth, kKeys, kThreads>(stage + 2 * kStageElements, v2, a.v2.stride_l, tile * kKeys, p.Lk, p.Dv);
  }

  using Scores = float[kM][kKeys / 8][4];
  using Fragments = std::uint32_t[kM][kKeys / 16][4];

  UVIT_DEVICE float constant_shift() const { return arch::log2_fast(static_cast<float>(p.Lk)); }

  template <class Weight, bool kMasked, bool kFlip>
  UVIT_DEVICE void weigh_half(Fragments& weights, const Scores& x, int half, const TileMask<kM>& mask) {
    float correction[kM][2];
    weigh<T, Weight, kMasked, kFlip>(weights, x, state[half], correction, p.scale_log2, constant_shift(), mask);
    if (Weight::kHasShift) rescale(sums[half], correction);
  }

  template <bool kMasked>
  UVIT_DEVICE void weigh_first(Fragments& weights, const Scores& x, const TileMask<kM>& mask) {
    if constexpr (kVariant == Variant::cog) weigh_half<CogWeight, kMasked, false>(weights, x, 0, mask);
    if constexpr (kVariant == Variant::softmax || kVariant == Variant::dual) weigh_half<SoftmaxWeight, kMasked, false>(weights, x, 0, mask);
    if constexpr (kVariant == Variant::other) {
      if (p.kind == Kind::softmax1) weigh_half<Softmax1Weight, kMasked, false>(weights, x, 0, mask);
      if (p.kind == Kind::softpick) weigh_half<SoftpickWeight, kMasked, false>(weights, x, 0, mask);
      if (p.kind == Kind::sigmoid) weigh_half<SigmoidWeight, kMasked, false>(weights, x, 0, mask);
    }
  }

  template <bool kMasked>
  UVIT_DEVICE void step(int tile) {
    T *k_tile = stages + (tile & 1) * (v2 == nullptr ? 2 : 3) * kStageElements, *v_tile = k_tile + kStageElements;
    const int left = p.Lk - tile * kKeys, pairs = kMasked ? (left + 15) / 16 : kKeys / 16;
    Scores x;
    multiply_rows<T, kWidth, kM, kKeys>(x, q, k_tile, pairs);
    TileMask<kM> mask;
    mask.column = tile * kKeys + 2 * t;
    UVIT_UNROLL
    for (int m = 0; m < kM; ++m)
      UVIT_UNROLL
      for (int r = 0; r < 2; ++r) mask.limit[m][r] = visible_keys(p, row(m, r));
    Fragments weights[kHalves];
    weigh_first<kMasked>(weights[0], x, mask);
    if constexpr (kHalves == 2) weigh_half<SoftmaxWeight, kMasked, true>(weights[1], x, 1, mask);
    T* const v2_tile = v2 == nullptr ? nullptr : v_tile + kStageElements;
    accumulate<T, kWidth, kHalves, kM, kKeys / 16>(sums, weights, v_tile, v2_tile, pairs);
  }

  UVIT_DEVICE void wait_stage(int tile, int tiles) {
    arch::cp_async_wait<0>();
    arch::sync_block();  // the tile is there for all, and the other stage is read no more
    if (tile + 1 < tiles) load_stage(tile + 1);
    arch::cp_async_commit();
  }

  UVIT_DEVICE void run() {
    const int last = row0 + kRows < p.L ? row0 + kRows - 1 : p.L - 1;
    const int tiles = (visible_keys(p, last) + kKeys - 1) / kKeys, full_tiles = visible_keys(p, row0) / kKeys;
    load_tile<T, kWidth, kRows, kThreads>(q_tile, head_of<T>(a.q, b, h), a.q.stride_l, row0, p.L, p.D);
    if (tiles > 0) load_stage(0);
    arch::cp_async_commit();
    arch::cp_async_wait<0>();
    arch::sync_block();
    prepare_queries();
    arch::sync_block();
    q.load(q_tile, warp_row);
    const bool busy = warp_has_rows();
    int tile = 0;
    for (; tile < full_tiles; ++tile) {
      wait_stage(tile, tiles);
      if (busy) step<false>(tile);
    }
    for (; tile < tiles; ++tile) {
      wait_stage(tile, tiles);
      if (busy) step<true>(tile);
    }
    if (busy) finish();
  }

  /// Z of a row, with the law's constant.
  UVIT_DEVICE float normaliser(int half, int m, int r, float shift) const {
    float z = state[half].sum[m][r];
    z += arch::shuffle_xor(z, 1);
    z += arch::shuffle_xor(z, 2);
    if constexpr (kVariant == Variant::other) {
      const float unit = arch::exp2_fast(-shift);
      z += p.kind == Kind::softmax1 ? Softmax1Weight::constant(unit) : p.kind == Kind::softpick ? SoftpickWeight::constant(unit) : 1;
    }
    return z;
  }

  UVIT_DEVICE void finish() {
    UVIT_UNROLL
    for (int m = 0; m < kM; ++m)
      UVIT_UNROLL
      for (int r = 0; r < 2; ++r) {
        float factor[kHalves];
        UVIT_UNROLL
        for (int half = 0; half < kHalves; ++half) factor[half] = finish_row(half, m, r);
        if (row(m, r) < p.L) store_row(m, r, factor);
      }
  }
  /// Writes the row's statistics; returns 1 / Z, or 0 for a row that sees no key.
  UVIT_DEVICE float finish_row(int half, int m, int r) {
    const bool visible = visible_keys(p, row(m, r)) > 0;
    const bool is_sigmoid = kVariant == Variant::other && p.kind == Kind::sigmoid;
    const float shift = is_sigmoid ? constant_shift() : shift_of(state[half].largest[m][r], p.scale_log2);
    const float z = normaliser(half, m, r, shift);
    if (a.stats != nullptr && t == 0 && row(m, r) < p.L) {
      float* to = a.stats + 2 * half * p.rows + static_cast<std::int64_t>(head) * p.L + row(m, r);
      to[0] = visible ? shift : -INFINITY;
      to[p.rows] = visible && !is_sigmoid ? arch::log(z) * 1.44269504f : 0;
    }
    return visible ? 1 / z : 0;
  }
  UVIT_DEVICE void store_row(int m, int r, const float (&factor)[kHalves]) {
    const int i = row(m, r);
    const std::int64_t part_row = (static_cast<std::int64_t>(head) * p.L + i) * p.Dv;
    float weight[2] = {1, a.sign};
    UVIT_UNROLL
    for (int half = 0; half < kHalves; ++half)
      if (a.weight[half] != nullptr) weight[half] *= a.weight[half][h];
    UVIT_UNROLL
    for (int n = 0; n < kWidth / 8; ++n) {
      const int column = 8 * n + 2 * t;
      if (column >= p.Dv) continue;
      float lo = 0, hi = 0;
      UVIT_UNROLL
      for (int half = 0; half < kHalves; ++half) {
        const float x = sums[half][m][n][2 * r] * factor[half], y = sums[half][m][n][2 * r + 1] * factor[half];
        if (a.part[half] != nullptr) a.part[half][part_row + column] = x, a.part[half][part_row + column + 1] = y;
        lo += kHalves == 2 ? weight[half] * x : x, hi += kHalves == 2 ? weight[half] * y : y;
      }
      if (a.o.data == nullptr) continue;
      if (factor[0] != 0) lo += addend_at(a.addend, head, h, i, column), hi += addend_at(a.addend, head, h, i, column + 1);
      T* to = head_of<T>(a.o, b, h) + i * a.o.stride_l + column;
      arch::store_global<1>(to, {{arch::pack2<T>(lo, hi)}});
    }
  }
};

template <class T, int kWidth, Variant kVariant>
UVIT_KERNEL((ForwardKernel<T, kWidth, kVariant>::kThreads), (forward_tile(kVariant, kWidth).blocks_per_sm))
void attention_forward_kernel(const ForwardArguments arguments) {
  UVIT_SHARED_MEMORY(shared);
  ForwardKernel<T, kWidth, kVariant> kernel(arguments, shared);
  kernel.run();
}

}  // namespace uvit::kernels::cuda
