// Backward of the kinds with two normalisers: o = a softmax(t1) v + b softmax(t2) v'. With p_n = softmax(t_n), dp_n = dout (v or v')^T and
// delta_n = rowsum(p_n dp_n): dt1 = a p1 (dp1 - delta1), dt2 = b p2 (dp2 - delta2), da = sum of delta1, db = sum of delta2.
// The deltas come first, from whole rows in memory, and leave p1 and p2 there for the gradients.
#include "kernels/attention/cpu/isa/backward.h"

namespace uvit::kernels::UVIT_ISA {

template <class C, Two kTwo>
struct BackwardTwoBuffers : BackwardBuffers<C> {
  float *k2 = nullptr, *k2_lines = nullptr, *q2 = nullptr, *q2_lines = nullptr, *dq2 = nullptr, *ds2 = nullptr, *t = nullptr, *v2 = nullptr,
        *dp2 = nullptr;
  BackwardTwoBuffers(const AttentionParams& p, const Plan& plan, Arena& arena) : BackwardBuffers<C>(p, plan, arena) {
    const std::int64_t rows = round_up(plan.row_block, 2);
    t = arena.take(rows * this->s_row);
    if (kTwo == Two::two_scores) {
      k2 = arena.take(round_up(p.Lk, kBlockColumns) * (p.D / C::kPair));
      k2_lines = arena.take(cells_of<C>(p.Lk) * this->d_row);
      q2 = arena.take(rows * this->q_row);
      q2_lines = C::kPair == 1 ? q2 : arena.take(rows / C::kPair * this->d_row);
      dq2 = arena.take(rows * this->d_row);
      ds2 = C::kPair == 1 ? t : arena.take(rows * this->s_row / C::kPair);
    }
    if (kTwo == Two::two_values) {
      v2 = arena.take(round_up(p.Lk, kBlockColumns) * (p.Dv / C::kPair));
      dp2 = arena.take(rows * this->s_row);
    }
  }
};

/// Some rows' places in the buffers. First: s = scores, t = second scores (two scores), dp, dp2 (two values). Then p1 is in s and p2 in t. At last:
/// weights over s (one value), s and t (two values) or dp (two scores); ds over dp, or over s and t (two scores).
struct TwoRows {
  float *s, *t, *dp, *dp2;
  std::int64_t s_row;
};

/// Scores of one row become p1 and p2, they and dp 0 for keys that the row does not see; delta_n = rowsum(p_n dp_n). log Z = hi + lo.
template <class C, Two kTwo>
static void weigh_with_deltas(const TwoRows& m, std::int64_t valid, std::int64_t columns, Vec scale, const float* log_hi, const float* log_lo,
                              float* delta) {
  const Vec hi[2] = {splat(log_hi[0]), splat(log_hi[1])}, lo[2] = {splat(log_lo[0]), splat(log_lo[1])};
  Vec sum[2] = {};
  auto weigh = [&](std::int64_t j, std::int64_t lanes) {
    const Vec t1 = load(m.s + j) * scale, t2 = kTwo == Two::two_scores ? load(m.t + j) * scale : -t1;
    Vec p[2] = {C::Math::exp((t1 - hi[0]) - lo[0]), C::Math::exp((t2 - hi[1]) - lo[1])};
    Vec dp = load(m.dp + j), dp2 = kTwo == Two::two_values ? load(m.dp2 + j) : dp;
    if (lanes < kLanes) {
      Vec* const edges[] = {&p[0], &p[1], &dp, &dp2};
      for (Vec* x : edges) *x = first_lanes(*x, lanes, Vec{});
      store(m.dp + j, dp);
      if (kTwo == Two::two_values) store(m.dp2 + j, dp2);
    }
    sum[0] += p[0] * dp;
    sum[1] += p[1] * dp2;
    store(m.s + j, p[0]);
    store(m.t + j, p[1]);
  };
  std::int64_t j = 0;
  for (; j + kLanes <= valid; j += kLanes) weigh(j, kLanes);
  for (; j < columns; j += kLanes) weigh(j, valid - j);
  delta[0] = reduce_add(sum[0]);
  delta[1] = reduce_add(sum[1]);
}

template <class C, Two kTwo>
static void differentiate_rows_two(const TwoRows& m, float* ds, float* ds2, std::int64_t columns, const TwoFactors& factor, const float* delta1,
                                   const float* delta2) {
  const Vec a = splat(factor.a), b = splat(factor.b);
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    Vec w[C::kPair], w2[C::kPair], d[C::kPair], d2[C::kPair];
#pragma GCC unroll 2
    for (int r = 0; r < C::kPair; ++r) {
      const std::int64_t at = r * m.s_row + j;
      const Vec dp = load(m.dp + at), dp2 = kTwo == Two::two_values ? load(m.dp2 + at) : dp;
      w[r] = a * load(m.s + at), w2[r] = b * load(m.t + at);
      d[r] = w[r] * (dp - splat(delta1[r])), d2[r] = w2[r] * (dp2 - splat(delta2[r]));
      if (kTwo != Two::two_values) w[r] += w2[r];
      if (kTwo != Two::two_scores) d[r] -= d2[r];
    }
    C::store_across(kTwo == Two::two_scores ? m.dp : m.s, j, w);
    C::store_across(kTwo == Two::two_scores ? m.s : m.dp, j, d);
    if (kTwo == Two::two_values) C::store_across(m.t, j, w2);
    if (kTwo == Two::two_scores) C::store_across(m.t, j, d2);
    if (C::kPair == 1) continue;
    for (int r = 0; r < C::kPair; ++r) {
      C::store_along(ds + r * m.s_row / C::kPair, j, d[r]);
      if (kTwo == Two::two_scores) C::store_along(ds2 + r * m.s_row / C::kPair, j, d2[r]);
    }
  }
}

/// The operands of one head, packed, and the steps on one block of queries.
template <class C, Two kTwo>
struct BackwardTwo {
  static constexpr Dtype kType = C::kDtype;
  const AttentionParams& p;
  const Piece& piece;
  const BackwardTwoBuffers<C, kTwo>& m;
  const KeySums& sums;
  const TwoFactors factor{p, piece.h};
  std::int64_t i0 = 0, rows = 0;

  Matrix input(const View& view, std::int64_t width) const { return matrix<kType>(view, piece.b, piece.h, width); }
  void pack_keys(std::int64_t keys) const {
    const Matrix k = input(p.k, p.D);
    pack_transposed<C>(k, keys, m.k);
    pack_across<C>(k, 0, keys, m.k_lines, m.d_row);
    pack_transposed<C>(input(p.v, p.Dv), keys, m.v);
    if (kTwo == Two::two_values) pack_transposed<C>(input(p.v2, p.Dv), keys, m.v2);
    if (kTwo == Two::two_scores) pack_transposed<C>(input(p.k2, p.D), keys, m.k2);
    if (kTwo == Two::two_scores) pack_across<C>(input(p.k2, p.D), 0, keys, m.k2_lines, m.d_row);
  }
  void pack_queries() const {
    m.pack_queries(input(p.q, p.D), input(p.dout, p.Dv), i0, rows);
    if (kTwo != Two::two_scores) return;
    pack_along<C>(input(p.q2, p.D), i0, rows, m.q2, m.q_row);
    if (C::kPair > 1) pack_across<C>(input(p.q2, p.D), i0, rows, m.q2_lines, m.d_row);
  }
  TwoRows rows_at(std::int64_t i) const {
    const std::int64_t at = i * m.s_row;
    return {m.s + at, m.t + at, m.dp + at, kTwo == Two::two_values ? m.dp2 + at : nullptr, m.s_row};
  }
  /// Weights and dp of the block, and its deltas. With an odd number of rows the last pair's other half is 0.
  void weigh(std::int64_t keys, float* delta1, float* delta2) const {
    const std::int64_t depth = p.D / C::kPair, v_depth = p.Dv / C::kPair, vecs = (keys + kLanes - 1) / kLanes;
    multiply_panels<C>(rows, vecs, depth, m.q, m.q_row, m.k, m.s, m.s_row);
    multiply_panels<C>(rows, vecs, v_depth, m.dout, m.o_row, m.v, m.dp, m.s_row);
    if (kTwo == Two::two_scores) multiply_panels<C>(rows, vecs, depth, m.q2, m.q_row, m.k2, m.t, m.s_row);
    if (kTwo == Two::two_values) multiply_panels<C>(rows, vecs, v_depth, m.dout, m.o_row, m.v2, m.dp2, m.s_row);
    for (std::int64_t i = 0; i < round_up(rows, C::kPair); ++i) {
      float hi[2] = {}, lo[2] = {}, delta[2] = {};
      for (int n = 0; i < rows && n < 2; ++n) {
        hi[n] = *stats_row(p, 2 * n, piece.b, piece.h, i0 + i);
        lo[n] = *stats_row(p, 2 * n + 1, piece.b, piece.h, i0 + i);
      }
      weigh_with_deltas<C, kTwo>(rows_at(i), i < rows ? visible_keys(p, i0 + i) : 0, columns_of<C>(keys), splat(p.scale), hi, lo, delta);
      delta1[i] = delta[0];
      delta2[i] = delta[1];
    }
  }
  void gradients(std::int64_t keys, const float* delta1, const float* delta2) const {
    for (std::int64_t i = 0; i < rows; i += C::kPair)
      differentiate_rows_two<C, kTwo>(rows_at(i), m.ds + i * m.ds_row(), m.ds2 ? m.ds2 + i * m.ds_row() : nullptr, columns_of<C>(keys), factor,
                                      delta1 + i, delta2 + i);
    constexpr bool kScores = kTwo == Two::two_scores;
    m.add_to_keys(kScores ? m.dp : m.s, rows, keys, m.dout_lines, m.v_row, sums.dv);
    m.add_to_keys(kScores ? m.s : m.dp, rows, keys, m.q_lines, m.d_row, sums.dk);
    m.add_to_queries(C::kPair == 1 && kScores ? m.s : m.ds, rows, 0, keys, m.k_lines, m.dq);
    if (kTwo == Two::two_values) m.add_to_keys(m.t, rows, keys, m.dout_lines, m.v_row, sums.dv2);
    if (kScores) m.add_to_keys(m.t, rows, keys, m.q2_lines, m.d_row, sums.dk2);
    if (kScores) m.add_to_queries(m.ds2, rows, 0, keys, m.k2_lines, m.dq2);
  }
};

template <class C, Two kTwo>
static void backward_two_piece(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch, float* sum_floats,
                               double* weight_sums) {
  const Piece piece(p, plan, item);
  Arena arena{scratch};
  const BackwardTwoBuffers<C, kTwo> m(p, plan, arena);
  const KeySums sums(p, sum_floats);
  BackwardTwo<C, kTwo> work{p, piece, m, sums};
  fill_zero(sum_floats, sums.floats);
  Prefetcher<C::kDtype> next(p, plan, item);
  next.add(p.k, p.Lk, p.D), next.add(p.v, p.Lk, p.Dv), next.add(p.q, p.L, p.D), next.add(p.dout, p.L, p.Dv);
  if (kTwo == Two::two_values) next.add(p.v2, p.Lk, p.Dv);
  if (kTwo == Two::two_scores) next.add(p.k2, p.Lk, p.D), next.add(p.q2, p.L, p.D);
  work.pack_keys(visible_keys(p, piece.end - 1));
  const std::int64_t block = round_up(plan.row_block, 2);
  float *delta1 = m.delta, *delta2 = m.delta + block;
  weight_sums[0] = weight_sums[1] = 0;
  for (work.i0 = piece.begin; work.i0 < piece.end; work.i0 += plan.row_block) {
    const std::int64_t rows = work.rows = min(plan.row_block, piece.end - work.i0), keys = visible_keys(p, work.i0 + rows - 1);
    work.pack_queries();
    prefetch_rows_to_write<C::kDtype>(matrix<C::kDtype>(p.dq, piece.b, piece.h, p.D), work.i0, rows);
    for (std::int64_t i = 0; i < rows; ++i) next.fetch(work.i0 + i);
    work.weigh(keys, delta1, delta2);
    if (keys > 0) {
      work.gradients(keys, delta1, delta2);
    } else {
      fill_zero(m.dq, static_cast<std::size_t>(rows * m.d_row));
      if (kTwo == Two::two_scores) fill_zero(m.dq2, static_cast<std::size_t>(rows * m.d_row));
    }
    write_rows<C::kDtype>(m.dq, m.d_row, rows, matrix<C::kDtype>(p.dq, piece.b, piece.h, p.D), work.i0, p.scale);
    if (kTwo == Two::two_scores)
      write_rows<C::kDtype>(m.dq2, m.d_row, rows, matrix<C::kDtype>(p.dq2, piece.b, piece.h, p.D), work.i0, p.scale);
    for (std::int64_t i = 0; i < rows; ++i) {
      weight_sums[0] += static_cast<double>(delta1[i]);
      weight_sums[1] += static_cast<double>(work.factor.weight_sign * delta2[i]);
    }
  }
}

}  // namespace uvit::kernels::UVIT_ISA
