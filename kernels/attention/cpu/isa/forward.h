// Forward of the kinds with one normaliser: per block of queries, scores of a tile of keys, weights in place of them, times the values.
// One tile for short rows (two passes over the row while it lies in the second-level cache), online rescaling above.
#include "kernels/attention/cpu/isa/forward_common.h"

namespace uvit::kernels::UVIT_ISA {

constexpr std::int64_t kForwardRows = 60, kForwardWholeRow = 1088, kForwardTile = 768, kForwardSplitRows = 256;

/// Kinds with two normalisers hold whole rows of any length: their two shares of the output can only be added when both sums are known, and keeping
/// them apart costs a product more.
static Plan forward_plan(const AttentionParams& p) {
  return make_plan(p, split_queries(p, kForwardSplitRows), kForwardRows, two_normalisers(p.kind) ? p.Lk : kForwardWholeRow, kForwardTile);
}

/// Scratch of one item.
template <class C>
struct ForwardBuffers {
  std::int64_t q_row, v_row, s_row;
  float *k, *v, *q, *s, *o, *shift, *sum, *mean;
  ForwardBuffers(const AttentionParams& p, const Plan& plan, Arena& arena) {
    q_row = round_up(p.D / C::kPair, kLanes);
    v_row = round_up(p.Dv, kLanes);
    s_row = plan.key_tile + kLanes;  // not a multiple of a page: rows would fall on the same cache sets
    k = arena.take(round_up(p.Lk, kBlockColumns) * (p.D / C::kPair));
    v = arena.take(cells_of<C>(p.Lk) * v_row);
    q = arena.take(plan.row_block * q_row);
    s = arena.take(plan.row_block * s_row);
    o = arena.take(plan.row_block * v_row);
    shift = arena.take(plan.row_block);
    sum = arena.take(plan.row_block);
    mean = arena.take(3 * v_row);
  }
};

/// The scores of one row in one tile become weights; shift and sum are the row's state. Returns what earlier sums and outputs are multiplied by.
template <class C, class W>
static float weigh_row(float* s, std::int64_t valid, std::int64_t columns, Vec scale, float& shift, float& sum) {
  using Math = typename C::Math;
  const std::int64_t full = valid / kLanes * kLanes;
  float rescale = 1;
  if (W::kHasShift && valid > 0) {
    Vec largest = splat(shift), other = largest;
    std::int64_t j = 0;
    for (; j + kLanes < full; j += 2 * kLanes) {
      largest = max(largest, W::template key<Math>(load(s + j) * scale));
      other = max(other, W::template key<Math>(load(s + j + kLanes) * scale));
    }
    for (; j < full; j += kLanes) largest = max(largest, W::template key<Math>(load(s + j) * scale));
    if (full < valid) other = max(other, first_lanes(W::template key<Math>(load(s + full) * scale), valid - full, other));
    const float now = reduce_max(max(largest, other));
    rescale = shift == -kInfinity ? 0 : Math::exp(splat(shift - now))[0];
    shift = now;
  }
  const Vec shift_vec = splat(shift), unit = Math::exp(-shift_vec);
  Vec total = Vec{}, other = Vec{}, w, z;
  std::int64_t j = 0;
  for (; j + kLanes < full; j += 2 * kLanes) {
    Vec w2;
    total += W::template forward<Math>(load(s + j) * scale, shift_vec, unit, w);
    other += W::template forward<Math>(load(s + j + kLanes) * scale, shift_vec, unit, w2);
    C::store_along(s, j, w);
    C::store_along(s, j + kLanes, w2);
  }
  for (; j < full; j += kLanes) {
    total += W::template forward<Math>(load(s + j) * scale, shift_vec, unit, w);
    C::store_along(s, j, w);
  }
  if (full < valid) {
    z = W::template forward<Math>(load(s + full) * scale, shift_vec, unit, w);
    other += first_lanes(z, valid - full, Vec{});
    C::store_along(s, full, first_lanes(w, valid - full, Vec{}));
    j += kLanes;
  }
  for (; j < columns; j += kLanes) C::store_along(s, j, Vec{});
  if (W::kHasShift) sum = sum * rescale + reduce_add(total + other);
  return rescale;
}

template <class C, class W>
static void forward_piece(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch) {
  const Piece piece(p, plan, item);
  Arena arena{scratch};
  const ForwardBuffers<C> m(p, plan, arena);
  constexpr Dtype kType = C::kDtype;
  const Matrix q = matrix<kType>(p.q, piece.b, piece.h, p.D), v = matrix<kType>(p.v, piece.b, piece.h, p.Dv);
  const MutableMatrix o = matrix<kType>(p.o, piece.b, piece.h, p.Dv);
  const std::int64_t all_keys = visible_keys(p, piece.end - 1), depth = p.D / C::kPair;
  pack_transposed<C>(matrix<kType>(p.k, piece.b, piece.h, p.D), all_keys, m.k);
  pack_across<C>(v, 0, all_keys, m.v, m.v_row);
  RunningMean<kType> mean(v, m.mean + m.v_row);
  Prefetcher<kType> next(p, plan, item);
  next.add(p.k, p.Lk, p.D), next.add(p.v, p.Lk, p.Dv), next.add(p.q, p.L, p.D);
  const Vec scale = splat(p.scale);
  for (std::int64_t i0 = piece.begin; i0 < piece.end; i0 += plan.row_block) {
    const std::int64_t rows = min(plan.row_block, piece.end - i0), keys = visible_keys(p, i0 + rows - 1);
    pack_along<C>(q, i0, rows, m.q, m.q_row);
    prefetch_rows_to_write<kType>(o, i0, rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      m.shift[i] = !W::kHasShift ? __builtin_logf(static_cast<float>(p.Lk)) : W::kZeroInShift ? 0 : -kInfinity;
      m.sum[i] = 0;
    }
    for (std::int64_t k0 = 0; k0 < keys; k0 += plan.key_tile) {
      const std::int64_t tile = min(plan.key_tile, keys - k0), vecs = (tile + kLanes - 1) / kLanes;
      multiply_panels<C>(rows, vecs, depth, m.q, m.q_row, m.k + k0 * depth, m.s, m.s_row);
      for (std::int64_t i = 0; i < rows; ++i) {
        next.fetch(i0 + i);
        const std::int64_t valid = max(0, min(tile, visible_keys(p, i0 + i) - k0));
        const float rescale = weigh_row<C, W>(m.s + i * m.s_row, valid, columns_of<C>(tile), scale, m.shift[i], m.sum[i]);
        if (W::kHasShift && k0 > 0 && rescale != 1)
          for (std::int64_t d = 0; d < m.v_row; d += kLanes) store(m.o + i * m.v_row + d, load(m.o + i * m.v_row + d) * splat(rescale));
      }
      multiply_rows<C>(rows, m.v_row / kLanes, (tile + C::kPair - 1) / C::kPair, m.s, m.s_row, 1, m.v + k0 / C::kPair * m.v_row, m.v_row, m.o,
                       m.v_row, k0 > 0);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t visible = visible_keys(p, i0 + i);
      float* line = m.o + i * m.v_row;
      const float sum = W::kHasShift ? m.sum[i] + W::constant(C::Math::exp(splat(-m.shift[i]))[0]) : 1;
      if (visible == 0)
        for (std::int64_t d = 0; d < m.v_row; ++d) line[d] = 0;
      else
        for (std::int64_t d = 0; d < m.v_row; d += kLanes) store(line + d, load(line + d) * splat(1 / sum));
      if (W::kCentered) {
        mean.of(visible, m.mean);
        for (std::int64_t d = 0; d < p.Dv; ++d) line[d] -= m.mean[d];
      }
      write_rows<kType>(line, m.v_row, 1, o, i0 + i, 1);
      if (p.stats) {
        *stats_row(p, 0, piece.b, piece.h, i0 + i) = visible ? m.shift[i] : -kInfinity;
        *stats_row(p, 1, piece.b, piece.h, i0 + i) = visible && W::kHasShift ? __builtin_logf(sum) : 0;
      }
    }
  }
}

}  // namespace uvit::kernels::UVIT_ISA
