// Forward of the kinds with two normalisers: o = a softmax(t1) v + b softmax(t2) v', both sums from one pass over the keys. Whole rows of scores are
// in memory, whatever their length: with one value tensor the two weights are added before the product.
#include "kernels/attention/cpu/isa/forward.h"

namespace uvit::kernels::UVIT_ISA {

enum class Two { signed_scores, two_values, two_scores };  // t2 = -t1, v' = v; t2 = -t1, v' = v2; t2 = q2 k2^T, v' = v

/// Factors of the two terms; weight_sign: d b / d w_minus.
struct TwoFactors {
  float a, b, weight_sign;
  TwoFactors(const AttentionParams& p, std::int64_t h) {
    weight_sign = p.kind == Kind::dipole ? 1 : -1;
    a = p.kind == Kind::sda || p.kind == Kind::diff ? 1 : p.w_plus[h];
    b = weight_sign * (p.kind == Kind::sda ? 1 : p.w_minus[h]);
  }
};

template <class C, Two kTwo>
struct ForwardTwoBuffers : ForwardBuffers<C> {
  static constexpr bool kCombined = kTwo != Two::two_values;  ///< one product with the sum of both weights
  std::int64_t t_row;                                         ///< 0 where the second scores are needed one row at a time
  float *k2 = nullptr, *v2 = nullptr, *q2 = nullptr, *t, *o2 = nullptr, *sum2;
  ForwardTwoBuffers(const AttentionParams& p, const Plan& plan, Arena& arena)
      : ForwardBuffers<C>(p, plan, arena), t_row(kTwo == Two::signed_scores ? 0 : this->s_row) {
    if (kTwo == Two::two_scores) k2 = arena.take(round_up(p.Lk, kBlockColumns) * (p.D / C::kPair));
    if (kTwo == Two::two_scores) q2 = arena.take(plan.row_block * this->q_row);
    if (kTwo == Two::two_values) v2 = arena.take(cells_of<C>(p.Lk) * this->v_row);
    if (kTwo == Two::two_values) o2 = arena.take(plan.row_block * this->v_row);
    t = arena.take(t_row ? plan.row_block * t_row : this->s_row);
    sum2 = arena.take(plan.row_block);
  }
};

/// The shifts and sums of one row.
struct TwoSums {
  float shift[2], sum[2];
};

/// Scores become e^(t1 - shift1) in s and e^(t2 - shift2) in t, as floats or (kCells) as cells for the next product.
template <class C, Two kTwo, bool kCells>
static TwoSums exponentials(float* s, float* t, std::int64_t valid, std::int64_t columns, Vec scale) {
  using Math = typename C::Math;
  auto second = [&](std::int64_t j, Vec first) { return kTwo == Two::two_scores ? load(t + j) * scale : -first; };
  const std::int64_t full = valid / kLanes * kLanes;
  Vec largest[2] = {splat(-kInfinity), splat(-kInfinity)};
  for (std::int64_t j = 0; j < full; j += kLanes) {
    const Vec t1 = load(s + j) * scale;
    largest[0] = max(largest[0], t1);
    largest[1] = max(largest[1], second(j, t1));
  }
  if (full < valid) {
    const Vec t1 = load(s + full) * scale;
    largest[0] = max(largest[0], first_lanes(t1, valid - full, largest[0]));
    largest[1] = max(largest[1], first_lanes(second(full, t1), valid - full, largest[1]));
  }
  TwoSums row;
  Vec shift[2], sum[2] = {};
  for (int n = 0; n < 2; ++n) shift[n] = splat(row.shift[n] = reduce_max(largest[n]));
  auto put = [](float* to, std::int64_t j, Vec w) { kCells ? C::store_along(to, j, w) : store(to + j, w); };
  std::int64_t j = 0;
  for (; j < full; j += kLanes) {
    const Vec t1 = load(s + j) * scale, e1 = Math::exp(t1 - shift[0]), e2 = Math::exp(second(j, t1) - shift[1]);
    sum[0] += e1;
    sum[1] += e2;
    put(s, j, e1);
    put(t, j, e2);
  }
  if (full < valid) {
    const Vec t1 = load(s + j) * scale, e1 = first_lanes(Math::exp(t1 - shift[0]), valid - j, Vec{});
    const Vec e2 = first_lanes(Math::exp(second(j, t1) - shift[1]), valid - j, Vec{});
    sum[0] += e1;
    sum[1] += e2;
    put(s, j, e1);
    put(t, j, e2);
    j += kLanes;
  }
  for (; j < columns; j += kLanes) {
    put(s, j, Vec{});
    put(t, j, Vec{});
  }
  for (int n = 0; n < 2; ++n) row.sum[n] = reduce_add(sum[n]);
  return row;
}

/// The scores of one row become the weights of the next product: a softmax(t1) + b softmax(t2) in s, or (two values) both exponentials.
template <class C, Two kTwo>
static TwoSums weigh_row_two(float* s, float* t, std::int64_t valid, std::int64_t columns, Vec scale, const TwoFactors& factor) {
  constexpr bool kCombined = ForwardTwoBuffers<C, kTwo>::kCombined;
  if (valid == 0) {
    for (std::int64_t j = 0; j < columns; j += kLanes) {
      C::store_along(s, j, Vec{});
      if (!kCombined) C::store_along(t, j, Vec{});
    }
    return {{-kInfinity, -kInfinity}, {1, 1}};
  }
  const TwoSums row = exponentials<C, kTwo, !kCombined>(s, t, valid, columns, scale);
  if (!kCombined) return row;
  const Vec a = splat(factor.a / row.sum[0]), b = splat(factor.b / row.sum[1]);
  for (std::int64_t j = 0; j < columns; j += kLanes) C::store_along(s, j, a * load(s + j) + b * load(t + j));
  return row;
}

template <class C, Two kTwo>
static void forward_two_piece(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch) {
  const Piece piece(p, plan, item);
  Arena arena{scratch};
  const ForwardTwoBuffers<C, kTwo> m(p, plan, arena);
  constexpr Dtype kType = C::kDtype;
  constexpr bool kCombined = m.kCombined;
  auto input = [&](const View& view, std::int64_t width) { return matrix<kType>(view, piece.b, piece.h, width); };
  const MutableMatrix o = matrix<kType>(p.o, piece.b, piece.h, p.Dv);
  const TwoFactors factor(p, piece.h);
  const std::int64_t all_keys = visible_keys(p, piece.end - 1), depth = p.D / C::kPair;
  pack_transposed<C>(input(p.k, p.D), all_keys, m.k);
  pack_across<C>(input(p.v, p.Dv), 0, all_keys, m.v, m.v_row);
  if (kTwo == Two::two_scores) pack_transposed<C>(input(p.k2, p.D), all_keys, m.k2);
  if (kTwo == Two::two_values) pack_across<C>(input(p.v2, p.Dv), 0, all_keys, m.v2, m.v_row);
  Prefetcher<kType> next(p, plan, item);
  next.add(p.k, p.Lk, p.D), next.add(p.v, p.Lk, p.Dv), next.add(p.q, p.L, p.D);
  if (kTwo == Two::two_values) next.add(p.v2, p.Lk, p.Dv);
  if (kTwo == Two::two_scores) next.add(p.k2, p.Lk, p.D), next.add(p.q2, p.L, p.D);
  for (std::int64_t i0 = piece.begin; i0 < piece.end; i0 += plan.row_block) {
    const std::int64_t rows = min(plan.row_block, piece.end - i0), keys = visible_keys(p, i0 + rows - 1), vecs = (keys + kLanes - 1) / kLanes;
    pack_along<C>(input(p.q, p.D), i0, rows, m.q, m.q_row);
    if (kTwo == Two::two_scores) pack_along<C>(input(p.q2, p.D), i0, rows, m.q2, m.q_row);
    prefetch_rows_to_write<kType>(o, i0, rows);
    multiply_panels<C>(rows, vecs, depth, m.q, m.q_row, m.k, m.s, m.s_row);
    if (kTwo == Two::two_scores) multiply_panels<C>(rows, vecs, depth, m.q2, m.q_row, m.k2, m.t, m.t_row);
    for (std::int64_t i = 0; i < rows; ++i) {
      next.fetch(i0 + i);
      const TwoSums row =
          weigh_row_two<C, kTwo>(m.s + i * m.s_row, m.t + i * m.t_row, visible_keys(p, i0 + i), columns_of<C>(keys), splat(p.scale), factor);
      m.sum[i] = row.sum[0], m.sum2[i] = row.sum[1];
      const float stats[4] = {row.shift[0], __builtin_logf(row.sum[0]), row.shift[1], __builtin_logf(row.sum[1])};
      for (int n = 0; p.stats && n < 4; ++n) *stats_row(p, n, piece.b, piece.h, i0 + i) = stats[n];
    }
    const std::int64_t key_cells = (keys + C::kPair - 1) / C::kPair, v_vecs = m.v_row / kLanes;
    multiply_rows<C>(rows, v_vecs, key_cells, m.s, m.s_row, 1, m.v, m.v_row, m.o, m.v_row, false);
    if (!kCombined) multiply_rows<C>(rows, v_vecs, key_cells, m.t, m.t_row, 1, m.v2, m.v_row, m.o2, m.v_row, false);
    for (std::int64_t i = 0; !kCombined && i < rows; ++i) {
      const Vec a = splat(factor.a / m.sum[i]), b = splat(factor.b / m.sum2[i]);
      float *line = m.o + i * m.v_row, *line2 = m.o2 + i * m.v_row;
      for (std::int64_t d = 0; d < m.v_row; d += kLanes) store(line + d, load(line + d) * a + load(line2 + d) * b);
    }
    for (std::int64_t i = 0; i < rows && visible_keys(p, i0 + i) == 0; ++i)  // the first rows of a causal block: not even a NaN reaches them
      for (std::int64_t d = 0; d < m.v_row; d += kLanes) store(m.o + i * m.v_row + d, Vec{});
    write_rows<kType>(m.o, m.v_row, rows, o, i0, 1);
  }
}

}  // namespace uvit::kernels::UVIT_ISA
