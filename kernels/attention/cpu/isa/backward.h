// Backward of the kinds with one normaliser. Per block of queries and tile of keys: scores and dp = dout v^T again, weights and ds in place of them,
// then dv += w^T dout, dk += ds^T q, dq += ds k. The key sums belong to one item, so nothing is shared between threads.
#include "kernels/attention/cpu/isa/forward_two.h"

namespace uvit::kernels::UVIT_ISA {

constexpr std::int64_t kBackwardRows = 60, kBackwardWholeRow = 576, kBackwardTile = 512;
// Every split of a head has key sums of its own: from 1024 queries on their number depends on B * H alone, and memory is linear in L.
constexpr std::int64_t kBackwardSplitRows = 128, kBackwardMaxSplits = 8;

/// The output, as backward reads it.
UVIT_INLINE View output_view(const AttentionParams& p) { return {p.o.data, p.o.stride_b, p.o.stride_h, p.o.stride_l}; }

/// Kinds with two normalisers hold whole rows of any length: they need both deltas before the first gradient, and a second sweep over the keys costs
/// three products more.
static Plan backward_plan(const AttentionParams& p) {
  const std::int64_t splits = min(kBackwardMaxSplits, split_queries(p, kBackwardSplitRows));
  return make_plan(p, splits, kBackwardRows, two_normalisers(p.kind) ? p.Lk : kBackwardWholeRow, kBackwardTile);
}

/// Where one item's sums over its queries lie: dk, dv, and dk2 or dv2.
struct KeySums {
  std::int64_t d_row, v_row;
  float *dk, *dv, *dk2, *dv2;
  std::size_t floats;
  KeySums(const AttentionParams& p, float* sums) : d_row(round_up(p.D, kLanes)), v_row(round_up(p.Dv, kLanes)) {
    Arena arena{sums};
    const std::int64_t keys = round_up(p.Lk, kRowsWritten);
    dk = arena.take(keys * d_row);
    dv = arena.take(keys * v_row);
    dk2 = p.kind == Kind::diff ? arena.take(keys * d_row) : nullptr;
    dv2 = p.kind == Kind::dipole ? arena.take(keys * v_row) : nullptr;
    floats = arena.used;
  }
};

/// Keys whose weights and sums are fetched while those before them are multiplied: whole lines of weights and whole micro-kernels.
template <class C>
constexpr std::int64_t kKeysAhead = C::kDepth > 1 ? 64 : 48;

/// Fetches rows of floats into the second-level cache: they lie far apart, and no hardware prefetcher follows so many at a time.
UVIT_INLINE void fetch_block(const float* from, std::int64_t rows, std::int64_t row, std::int64_t floats) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < floats; j += 16) __builtin_prefetch(from + i * row + j, 0, 2);
}

template <class C>
struct BackwardBuffers {
  std::int64_t q_row, o_row, d_row, v_row, s_row;
  float *k, *v, *k_lines, *q, *dout, *q_lines, *dout_lines, *s, *dp, *ds, *dq, *delta;
  BackwardBuffers(const AttentionParams& p, const Plan& plan, Arena& arena) {
    d_row = round_up(p.D, kLanes);
    v_row = round_up(p.Dv, kLanes);
    q_row = round_up(p.D / C::kPair, kLanes);
    o_row = round_up(p.Dv / C::kPair, kLanes);
    s_row = plan.key_tile + kLanes;
    const std::int64_t rows = round_up(plan.row_block, 2);
    k = arena.take(round_up(p.Lk, kBlockColumns) * (p.D / C::kPair));
    v = arena.take(round_up(p.Lk, kBlockColumns) * (p.Dv / C::kPair));
    k_lines = arena.take(cells_of<C>(p.Lk) * d_row);
    q = arena.take(rows * q_row);
    dout = arena.take(rows * o_row);
    // With one value a cell both packed forms of a block are the same.
    q_lines = C::kPair == 1 ? q : arena.take(rows / C::kPair * d_row);
    dout_lines = C::kPair == 1 ? dout : arena.take(rows / C::kPair * v_row);
    s = arena.take(rows * s_row);
    dp = arena.take(rows * s_row);
    ds = C::kPair == 1 ? dp : arena.take(rows * s_row / C::kPair);
    dq = arena.take(rows * d_row);
    delta = arena.take(3 * rows + 4 * v_row);
  }
  /// Places of row i in ds, whose cells run along the rows.
  std::int64_t ds_row() const { return s_row / C::kPair; }
  void pack_queries(const Matrix& from_q, const Matrix& from_dout, std::int64_t begin, std::int64_t rows) const {
    pack_along<C>(from_q, begin, rows, q, q_row);
    pack_along<C>(from_dout, begin, rows, dout, o_row);
    if (C::kPair == 1) return;
    pack_across<C>(from_q, begin, rows, q_lines, d_row);
    pack_across<C>(from_dout, begin, rows, dout_lines, v_row);
  }
  /// to [tile, width] += weights^T lines.
  void add_to_keys(const float* weights, std::int64_t rows, std::int64_t tile, const float* lines, std::int64_t width, float* to) const {
    const std::int64_t depth = (rows + C::kPair - 1) / C::kPair;
    constexpr std::int64_t kAhead = kKeysAhead<C>;
    for (std::int64_t at = 0; at < tile; at += kAhead) {
      const std::int64_t next = at + kAhead;
      if (next < tile) {
        fetch_block(weights + next, depth, C::kPair * s_row, min(kAhead, tile - next));
        fetch_block(to + next * width, min(kAhead, tile - next), width, width);
      }
      multiply_rows<C>(min(kAhead, tile - at), width / kLanes, depth, weights + at, 1, C::kPair * s_row, lines, width, to + at * width, width, true);
    }
  }
  /// to [rows, d_row] (+)= weights keys, weights with cells along the rows.
  void add_to_queries(const float* weights, std::int64_t rows, std::int64_t k0, std::int64_t tile, const float* keys, float* to) const {
    const std::int64_t depth = (tile + C::kPair - 1) / C::kPair, slice = slice_of<C>(depth);
    keys += k0 / C::kPair * d_row;
    for (std::int64_t at = 0; at < depth; at += slice) {
      const std::int64_t next = at + slice;
      if (next < depth) fetch_block(weights + next, rows, ds_row(), min(slice, depth - next));
      multiply_rows<C>(rows, d_row / kLanes, min(slice, depth - at), weights + at, ds_row(), 1, keys + at * d_row, d_row, to, d_row,
                       k0 > 0 || at > 0);
    }
  }
};

struct RowConstants {
  float hi, lo, unit, delta;
  std::int64_t valid;
};

/// Scores and dp of kPair rows become weights and ds, both with cells across the rows, and ds with cells along them.
template <class C, class W>
static void differentiate_rows(float* s, float* dp, std::int64_t s_row, float* ds, std::int64_t columns, Vec scale, const RowConstants* row) {
  using Math = typename C::Math;
  Vec hi[C::kPair], lo[C::kPair], unit[C::kPair], delta[C::kPair];
  std::int64_t full = columns;
  for (int r = 0; r < C::kPair; ++r) {
    hi[r] = splat(row[r].hi), lo[r] = splat(row[r].lo), unit[r] = splat(row[r].unit), delta[r] = splat(row[r].delta);
    full = min(full, row[r].valid / kLanes * kLanes);
  }
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    Vec w[C::kPair], d[C::kPair];
#pragma GCC unroll 2
    for (int r = 0; r < C::kPair; ++r)
      W::template backward<Math>(load(s + r * s_row + j) * scale, hi[r], lo[r], unit[r], delta[r], load(dp + r * s_row + j), w[r], d[r]);
    if (j >= full)
      for (int r = 0; r < C::kPair; ++r) {
        w[r] = first_lanes(w[r], row[r].valid - j, Vec{});
        d[r] = first_lanes(d[r], row[r].valid - j, Vec{});
      }
    C::store_across(s, j, w);
    C::store_across(dp, j, d);
    if (C::kPair > 1)
      for (int r = 0; r < C::kPair; ++r) C::store_along(ds + r * s_row / C::kPair, j, d[r]);
  }
}

/// delta[i] = rowsum(dout * o) of rows begin + i, summed in the order in which the micro-kernel sums dp: where one key has all the weight, o is its
/// value and dp - delta is exactly 0, whatever the size of the scores' gradients.
template <class C>
static void row_deltas(const Matrix& dout, const Matrix& o, std::int64_t begin, std::int64_t rows, float* delta) {
  const std::int64_t cells = dout.width / C::kPair;
  for (std::int64_t r = 0; r < rows; r += kLanes) {
    Vec sum = Vec{};
    for (std::int64_t c = 0; c < cells; c += kLanes) {
      Vec a[kLanes], b[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const bool inside = r + i < rows;
        a[i] = inside ? C::load_cells(dout.row(begin + r + i), c, cells - c) : Vec{};
        b[i] = inside ? C::load_cells(o.row(begin + r + i), c, cells - c) : Vec{};
      }
      transpose_block(a);
      transpose_block(b);
      for (int i = 0; i < kLanes && c + i < cells; ++i) sum = C::dot(sum, a[i], b[i]);
    }
    float lanes[kLanes];
    store(lanes, sum);
    for (std::int64_t i = 0; i < kLanes && r + i < rows; ++i) delta[r + i] = lanes[i];
  }
}

/// rowsum(dout * values), in the same order.
template <Dtype kType>
static float row_product(const char* dout, const float* values, std::int64_t width) {
  float sum = 0;
  for (std::int64_t d = 0; d < width; ++d) sum += RunningMean<kType>::value(dout, d) * values[d];
  return sum;
}

static void fill_zero(float* p, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) p[i] = 0;
}

template <class C, class W>
static void backward_piece(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch, float* sum_floats) {
  const Piece piece(p, plan, item);
  Arena arena{scratch};
  const BackwardBuffers<C> m(p, plan, arena);
  const KeySums sums(p, sum_floats);
  constexpr Dtype kType = C::kDtype;
  const Matrix q = matrix<kType>(p.q, piece.b, piece.h, p.D), k = matrix<kType>(p.k, piece.b, piece.h, p.D);
  const Matrix v = matrix<kType>(p.v, piece.b, piece.h, p.Dv), dout = matrix<kType>(p.dout, piece.b, piece.h, p.Dv);
  const Matrix o = matrix<kType>(output_view(p), piece.b, piece.h, p.Dv);
  const MutableMatrix dq = matrix<kType>(p.dq, piece.b, piece.h, p.D);
  const std::int64_t all_keys = visible_keys(p, piece.end - 1), depth = p.D / C::kPair, v_depth = p.Dv / C::kPair;
  fill_zero(sum_floats, sums.floats);
  pack_transposed<C>(k, all_keys, m.k);
  pack_transposed<C>(v, all_keys, m.v);
  pack_across<C>(k, 0, all_keys, m.k_lines, m.d_row);
  float* mean = m.delta + round_up(plan.row_block, 2);
  RunningMean<kType> running(v, mean + m.v_row);
  Prefetcher<kType> next(p, plan, item);
  next.add(p.k, p.Lk, p.D), next.add(p.v, p.Lk, p.Dv), next.add(p.q, p.L, p.D), next.add(p.dout, p.L, p.Dv);
  next.add(output_view(p), p.L, p.Dv);
  const Vec scale = splat(p.scale);
  for (std::int64_t i0 = piece.begin; i0 < piece.end; i0 += plan.row_block) {
    const std::int64_t rows = min(plan.row_block, piece.end - i0), keys = visible_keys(p, i0 + rows - 1);
    m.pack_queries(q, dout, i0, rows);
    prefetch_rows_to_write<kType>(dq, i0, rows);
    row_deltas<C>(dout, o, i0, rows, m.delta);
    for (std::int64_t i = 0; W::kCentered && i < rows; ++i) {
      running.of(visible_keys(p, i0 + i), mean);
      m.delta[i] += row_product<kType>(dout.row(i0 + i), mean, p.Dv);
    }
    if (keys == 0) fill_zero(m.dq, static_cast<std::size_t>(rows * m.d_row));
    for (std::int64_t k0 = 0; k0 < keys; k0 += plan.key_tile) {
      const std::int64_t tile = min(plan.key_tile, keys - k0), vecs = (tile + kLanes - 1) / kLanes;
      multiply_panels<C>(rows, vecs, depth, m.q, m.q_row, m.k + k0 * depth, m.s, m.s_row);
      multiply_panels<C>(rows, vecs, v_depth, m.dout, m.o_row, m.v + k0 * v_depth, m.dp, m.s_row);
      for (std::int64_t i = 0; i < rows; i += C::kPair) {
        RowConstants row[C::kPair] = {};
        for (int r = 0; r < C::kPair && i + r < rows; ++r) {
          next.fetch(i0 + i + r);
          const std::int64_t visible = visible_keys(p, i0 + i + r);
          row[r].valid = max(0, min(tile, visible - k0));
          row[r].hi = W::kHasShift ? *stats_row(p, 0, piece.b, piece.h, i0 + i + r) : __builtin_logf(static_cast<float>(p.Lk));
          row[r].lo = *stats_row(p, 1, piece.b, piece.h, i0 + i + r);
          if (W::kTakesSum) row[r].lo = C::Math::exp(splat(-row[r].lo))[0];
          row[r].unit = W::kCentered ? 1 / static_cast<float>(visible) : W::kTakesSum ? C::Math::exp(splat(-row[r].hi))[0] : 0;
          row[r].delta = m.delta[i + r];
        }
        differentiate_rows<C, W>(m.s + i * m.s_row, m.dp + i * m.s_row, m.s_row, m.ds + i * m.ds_row(), columns_of<C>(tile), scale, row);
      }
      m.add_to_keys(m.s, rows, tile, m.dout_lines, m.v_row, sums.dv + k0 * m.v_row);
      m.add_to_keys(m.dp, rows, tile, m.q_lines, m.d_row, sums.dk + k0 * m.d_row);
      m.add_to_queries(m.ds, rows, k0, tile, m.k_lines, m.dq);
    }
    write_rows<kType>(m.dq, m.d_row, rows, dq, i0, p.scale);
  }
}

/// Adds the key sums of a head's splits in their order and writes the gradients of its keys and values: the item-th of all pieces of keys.
template <Dtype kType>
static void finish_piece(const AttentionParams& p, const Plan& plan, std::int64_t item, float* head_sums) {
  const KeySums sums(p, head_sums);
  const std::int64_t b = item / plan.splits / p.H, h = item / plan.splits % p.H;
  const std::int64_t piece = (p.Lk + plan.splits - 1) / plan.splits, begin = min(p.Lk, item % plan.splits * piece);
  const std::int64_t keys = min(piece, p.Lk - begin);
  auto finish = [&](float* first, std::int64_t row, const MutableView& to, std::int64_t width, float factor) {
    if (!first) return;
    first += begin * row;
    for (std::int64_t split = 1; split < plan.splits; ++split)
      for (std::int64_t i = 0; i < keys * row; ++i) first[i] += first[static_cast<std::size_t>(split) * sums.floats + static_cast<std::size_t>(i)];
    write_rows<kType>(first, row, keys, matrix<kType>(to, b, h, width), begin, factor);
  };
  finish(sums.dk, sums.d_row, p.dk, p.D, p.scale);
  finish(sums.dv, sums.v_row, p.dv, p.Dv, 1);
  finish(sums.dk2, sums.d_row, p.dk2, p.D, p.scale);
  finish(sums.dv2, sums.v_row, p.dv2, p.Dv, 1);
}

}  // namespace uvit::kernels::UVIT_ISA
