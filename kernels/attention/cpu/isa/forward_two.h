// Forward of the kinds with two normalisers: o = a softmax(t1) v + b softmax(t2) v', both sums from one pass over the keys.
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
  float *k2 = nullptr, *v2 = nullptr, *q2 = nullptr, *t, *o2, *shift2, *sum2;
  ForwardTwoBuffers(const AttentionParams& p, const Plan& plan, Arena& arena) : ForwardBuffers<C>(p, plan, arena) {
    if (kTwo == Two::two_scores) k2 = arena.take(round_up(p.Lk, kBlockColumns) * (p.D / C::kPair));
    if (kTwo == Two::two_scores) q2 = arena.take(plan.row_block * this->q_row);
    if (kTwo == Two::two_values) v2 = arena.take((p.Lk + 1) / C::kPair * this->v_row);
    t = arena.take(plan.row_block * this->s_row);
    o2 = arena.take(plan.row_block * this->v_row);
    shift2 = arena.take(plan.row_block);
    sum2 = arena.take(plan.row_block);
  }
};

/// State of one row: the two shifts and sums, and the factors that the last tile's new shifts put on what came before.
struct TwoState {
  float shift[2], sum[2], rescale[2];
};

/// Scores become e^(t1 - shift1) in s and e^(t2 - shift2) in t, as floats or (kCells) as cells for the next product.
template <class C, Two kTwo, bool kCells>
static void weigh_row_two(float* s, float* t, std::int64_t valid, std::int64_t columns, Vec scale, TwoState& state) {
  using Math = typename C::Math;
  auto second = [&](std::int64_t j, Vec first) { return kTwo == Two::two_scores ? load(t + j) * scale : -first; };
  const std::int64_t full = valid / kLanes * kLanes;
  Vec largest[2] = {splat(state.shift[0]), splat(state.shift[1])};
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
  Vec shift[2], sum[2] = {};
  for (int n = 0; n < 2; ++n) {
    const float now = reduce_max(largest[n]);
    state.rescale[n] = state.shift[n] == -kInfinity ? 0 : Math::exp(splat(state.shift[n] - now))[0];
    state.shift[n] = now;
    shift[n] = splat(now);
  }
  auto put = [](float* row, std::int64_t j, Vec w) { kCells ? C::store_along(row, j, w) : store(row + j, w); };
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
  for (int n = 0; n < 2; ++n) state.sum[n] = state.sum[n] * state.rescale[n] + reduce_add(sum[n]);
}

static void save_part(const float* from, float factor, std::int64_t width, float* to) {
  for (std::int64_t d = 0; d < width; ++d) to[d] = factor == 0 ? 0 : factor * from[d];
}

template <class C, Two kTwo>
static void forward_two_piece(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch) {
  const Piece piece(p, plan, item);
  Arena arena{scratch};
  const ForwardTwoBuffers<C, kTwo> m(p, plan, arena);
  constexpr Dtype kType = C::kDtype;
  const Matrix q = matrix<kType>(p.q, piece.b, piece.h, p.D), q2 = matrix<kType>(p.q2, piece.b, piece.h, p.D);
  const MutableMatrix o = matrix<kType>(p.o, piece.b, piece.h, p.Dv);
  const TwoFactors factor(p, piece.h);
  const std::int64_t all_keys = visible_keys(p, piece.end - 1), depth = p.D / C::kPair;
  // One product with the combined weights where the whole row is in memory and the values are the same.
  const bool combined = kTwo != Two::two_values && plan.key_tile >= p.Lk;
  pack_transposed<C>(matrix<kType>(p.k, piece.b, piece.h, p.D), all_keys, m.k);
  pack_across<C>(matrix<kType>(p.v, piece.b, piece.h, p.Dv), 0, all_keys, m.v, m.v_row);
  if (kTwo == Two::two_scores) pack_transposed<C>(matrix<kType>(p.k2, piece.b, piece.h, p.D), all_keys, m.k2);
  if (kTwo == Two::two_values) pack_across<C>(matrix<kType>(p.v2, piece.b, piece.h, p.Dv), 0, all_keys, m.v2, m.v_row);
  Prefetcher<kType> next(p, plan, item);
  next.add(p.k, p.Lk, p.D), next.add(p.v, p.Lk, p.Dv), next.add(p.q, p.L, p.D);
  if (kTwo == Two::two_values) next.add(p.v2, p.Lk, p.Dv);
  if (kTwo == Two::two_scores) next.add(p.k2, p.Lk, p.D), next.add(p.q2, p.L, p.D);
  const Vec scale = splat(p.scale);
  auto add_values = [&](const float* s, const float* values, float* out, std::int64_t rows, std::int64_t k0, std::int64_t tile) {
    multiply_rows<C>(rows, m.v_row / kLanes, (tile + C::kPair - 1) / C::kPair, s, m.s_row, 1, values + k0 / C::kPair * m.v_row, m.v_row, out, m.v_row,
                     k0 > 0);
  };
  auto rescale_row = [&](float* line, float factor_of_old) {
    for (std::int64_t d = 0; d < m.v_row; d += kLanes) store(line + d, load(line + d) * splat(factor_of_old));
  };
  for (std::int64_t i0 = piece.begin; i0 < piece.end; i0 += plan.row_block) {
    const std::int64_t rows = min(plan.row_block, piece.end - i0), keys = visible_keys(p, i0 + rows - 1);
    pack_along<C>(q, i0, rows, m.q, m.q_row);
    if (kTwo == Two::two_scores) pack_along<C>(q2, i0, rows, m.q2, m.q_row);
    prefetch_rows_to_write<kType>(o, i0, rows);
    for (std::int64_t i = 0; i < rows; ++i) m.shift[i] = m.shift2[i] = -kInfinity, m.sum[i] = m.sum2[i] = 0;
    for (std::int64_t k0 = 0; k0 < keys; k0 += plan.key_tile) {
      const std::int64_t tile = min(plan.key_tile, keys - k0), vecs = (tile + kLanes - 1) / kLanes;
      multiply_panels<C>(rows, vecs, depth, m.q, m.q_row, m.k + k0 * depth, m.s, m.s_row);
      if (kTwo == Two::two_scores) multiply_panels<C>(rows, vecs, depth, m.q2, m.q_row, m.k2 + k0 * depth, m.t, m.s_row);
      for (std::int64_t i = 0; i < rows; ++i) {
        next.fetch(i0 + i);
        const std::int64_t valid = max(0, min(tile, visible_keys(p, i0 + i) - k0));
        float *s = m.s + i * m.s_row, *t = m.t + i * m.s_row;
        TwoState state{{m.shift[i], m.shift2[i]}, {m.sum[i], m.sum2[i]}, {1, 1}};
        if (combined) {
          weigh_row_two<C, kTwo, false>(s, t, valid, vecs * kLanes, scale, state);
          const Vec a = splat(valid ? factor.a / state.sum[0] : 0), b = splat(valid ? factor.b / state.sum[1] : 0);
          for (std::int64_t j = 0; j < vecs * kLanes; j += kLanes) C::store_along(s, j, a * load(s + j) + b * load(t + j));
        } else if (valid == 0) {
          for (std::int64_t j = 0; j < vecs * kLanes; j += kLanes) C::store_along(s, j, Vec{}), C::store_along(t, j, Vec{});
        } else {
          weigh_row_two<C, kTwo, true>(s, t, valid, vecs * kLanes, scale, state);
          if (k0 > 0) rescale_row(m.o + i * m.v_row, state.rescale[0]), rescale_row(m.o2 + i * m.v_row, state.rescale[1]);
        }
        m.shift[i] = state.shift[0], m.shift2[i] = state.shift[1], m.sum[i] = state.sum[0], m.sum2[i] = state.sum[1];
      }
      add_values(m.s, m.v, m.o, rows, k0, tile);
      if (!combined) add_values(m.t, kTwo == Two::two_values ? m.v2 : m.v, m.o2, rows, k0, tile);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const bool visible = visible_keys(p, i0 + i) > 0;
      float *line = m.o + i * m.v_row, *line2 = m.o2 + i * m.v_row;
      if (p.parts && plan.key_tile < p.Lk) {
        save_part(line, visible ? 1 / m.sum[i] : 0, p.Dv, parts_row(p, 0, piece.b, piece.h, i0 + i));
        save_part(line2, visible ? 1 / m.sum2[i] : 0, p.Dv, parts_row(p, 1, piece.b, piece.h, i0 + i));
      }
      const float a = factor.a / m.sum[i], b = factor.b / m.sum2[i];
      for (std::int64_t d = 0; d < m.v_row; d += kLanes)
        store(line + d, !visible ? Vec{} : combined ? load(line + d) : load(line + d) * splat(a) + load(line2 + d) * splat(b));
      write_rows<kType>(line, m.v_row, 1, o, i0 + i, 1);
      if (!p.stats) continue;
      const float stats[4] = {m.shift[i], __builtin_logf(m.sum[i]), m.shift2[i], __builtin_logf(m.sum2[i])};
      for (int n = 0; n < 4; ++n) *stats_row(p, n, piece.b, piece.h, i0 + i) = visible ? stats[n] : n % 2 ? 0 : -kInfinity;
    }
  }
}

}  // namespace uvit::kernels::UVIT_ISA
