#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/attention/params.h"
#include "kernels/attention/reference.h"

namespace uvit::test {

inline std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float from_bf16(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline std::uint16_t to_f16(float x) {
  const auto half = static_cast<_Float16>(x);
  std::uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
inline float from_f16(std::uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}

/// What a number becomes in the dtype.
inline float rounded(float x, kernels::Dtype dtype) {
  if (dtype == kernels::Dtype::f32) return x;
  return dtype == kernels::Dtype::bf16 ? from_bf16(to_bf16(x)) : from_f16(to_f16(x));
}
inline const char* dtype_name(kernels::Dtype dtype) {
  return dtype == kernels::Dtype::f32 ? "fp32" : dtype == kernels::Dtype::bf16 ? "bf16" : "fp16";
}

/// Attention as plain tensor operations compute it: float arithmetic, every tensor of the graph rounded to the dtype. Its error against double is
/// what the fused kernels' error is measured by (no rounding is hidden, and nothing is blocked).
class PlainAttention {
 public:
  PlainAttention(kernels::Reference& problem, kernels::Dtype dtype) : r(problem), dtype_(dtype) {}

  /// Writes o and all gradients of `problem`.
  void run() {
    auto zero = [](auto& to, const auto& like) { to.assign(like.size(), 0); };
    r.o.assign(static_cast<std::size_t>(r.B * r.H * r.L * r.Dv), 0);
    zero(r.dq, r.q), zero(r.dk, r.k), zero(r.dv, r.v), zero(r.dq2, r.q2), zero(r.dk2, r.k2), zero(r.dv2, r.v2);
    zero(r.dw_plus, r.w_plus), zero(r.dw_minus, r.w_minus);
    for (std::int64_t bh = 0; bh < r.B * r.H; ++bh)
      for (std::int64_t i = 0; i < r.L; ++i) row(bh, i);
    for (auto* t : {&r.dq, &r.dk, &r.dv, &r.dq2, &r.dk2, &r.dv2})
      for (double& x : *t) x = round(static_cast<float>(x));
  }

 private:
  using Floats = std::vector<float>;
  kernels::Reference& r;
  kernels::Dtype dtype_;

  float round(float x) const { return rounded(x, dtype_); }
  /// Rounded dot products of one row with the first n rows of a matrix.
  Floats products(const std::vector<double>& a, std::int64_t a_row, const std::vector<double>& b, std::int64_t b_row, std::int64_t width,
                  std::int64_t n) const {
    Floats out(static_cast<std::size_t>(n));
    for (std::int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (std::int64_t d = 0; d < width; ++d) sum += static_cast<float>(a[a_row * width + d]) * static_cast<float>(b[(b_row + j) * width + d]);
      out[j] = round(sum);
    }
    return out;
  }
  Floats softmax(const Floats& s) const {
    float largest = -INFINITY, z = 0;
    Floats p(s.size());
    for (float x : s) largest = std::fmax(largest, x);
    for (std::size_t j = 0; j < s.size(); ++j) z += p[j] = std::exp(s[j] - largest);
    for (float& x : p) x = round(x / z);
    return p;
  }
  /// p (g - sum p g), what autograd makes of a softmax.
  Floats softmax_backward(const Floats& p, const Floats& g) const {
    float delta = 0;
    Floats ds(p.size());
    for (std::size_t j = 0; j < p.size(); ++j) delta += p[j] * g[j];
    for (std::size_t j = 0; j < p.size(); ++j) ds[j] = round(p[j] * (g[j] - delta));
    return ds;
  }

  /// Weights of a kind with one normaliser, and ds for dw = g.
  void one(const Floats& s, const Floats& g, Floats& w, Floats& ds) const {
    using kernels::Kind;
    const std::size_t n = s.size();
    auto sign = [](float x) { return static_cast<float>((x > 0) - (x < 0)); };
    w.resize(n), ds.resize(n);
    if (r.kind == Kind::sigmoid) {
      const float log_n = std::log(static_cast<float>(r.Lk));
      for (std::size_t j = 0; j < n; ++j) w[j] = round(1 / (1 + std::exp(log_n - s[j]))), ds[j] = round(g[j] * w[j] * (1 - w[j]));
    } else if (r.kind == Kind::softpick || r.kind == Kind::softmax1) {
      float shift = 0, delta = 0;
      for (float x : s) shift = std::fmax(shift, x);
      const float one = std::exp(-shift);
      const bool pick = r.kind == Kind::softpick;
      float z = pick ? 1e-8f * one : one;
      for (float x : s) z += pick ? std::abs(std::exp(x - shift) - one) : std::exp(x - shift);
      for (std::size_t j = 0; j < n; ++j) {
        const float e = std::exp(s[j] - shift);
        w[j] = round((pick ? std::fmax(e - one, 0.f) : e) / z);
        delta += w[j] * g[j];
      }
      for (std::size_t j = 0; j < n; ++j) {
        const float e = std::exp(s[j] - shift) / z;
        ds[j] = round(pick ? e * ((s[j] > 0 ? g[j] : 0) - sign(s[j]) * delta) : e * (g[j] - delta));
      }
    } else if (r.kind == Kind::cog) {
      Floats a(n), h(n);
      for (std::size_t j = 0; j < n; ++j) a[j] = std::abs(s[j]), h[j] = sign(s[j]) * g[j];
      const Floats p = softmax(a), da = softmax_backward(p, h);
      for (std::size_t j = 0; j < n; ++j) w[j] = sign(s[j]) * p[j], ds[j] = sign(s[j]) * da[j];
    } else {
      const Floats p = softmax(s);
      ds = softmax_backward(p, g);
      const float centre = r.kind == Kind::centered ? 1 / static_cast<float>(n) : 0;
      for (std::size_t j = 0; j < n; ++j) w[j] = round(p[j] - centre);
    }
  }

  void add_values(const Floats& w, std::int64_t row, std::int64_t key, const std::vector<double>& v, std::vector<double>& dv, Floats& out) const {
    for (std::size_t j = 0; j < w.size(); ++j)
      for (std::int64_t d = 0; d < r.Dv; ++d) {
        const std::size_t at = (key + j) * r.Dv + d;
        out[d] += w[j] * static_cast<float>(v[at]);
        dv[at] = static_cast<float>(dv[at]) + w[j] * static_cast<float>(r.dout[row * r.Dv + d]);
      }
  }
  void add_scores(const Floats& ds, std::int64_t row, std::int64_t key, const std::vector<double>& q, const std::vector<double>& k,
                  std::vector<double>& dq, std::vector<double>& dk) const {
    for (std::size_t j = 0; j < ds.size(); ++j)
      for (std::int64_t d = 0; d < r.D; ++d) {
        const std::size_t at = (key + j) * r.D + d, to = row * r.D + d;
        const float x = round(ds[j] * static_cast<float>(r.scale));
        dq[to] = static_cast<float>(dq[to]) + x * static_cast<float>(k[at]);
        dk[at] = static_cast<float>(dk[at]) + x * static_cast<float>(q[to]);
      }
  }

  void row(std::int64_t bh, std::int64_t i) {
    using kernels::Kind;
    const std::int64_t visible = r.causal ? std::max<std::int64_t>(0, std::min(r.Lk, i + r.Lk - r.L + 1)) : r.Lk, at = bh * r.L + i, key = bh * r.Lk;
    const auto h = static_cast<std::size_t>(bh % r.H);
    if (visible == 0) return;
    Floats out(static_cast<std::size_t>(r.Dv)), w, ds;
    Floats s = products(r.q, at, r.k, key, r.D, visible);
    const Floats g = products(r.dout, at, r.v, key, r.Dv, visible);
    for (float& x : s) x = round(x * static_cast<float>(r.scale));
    if (!kernels::has_two_normalisers(r.kind)) {
      one(s, g, w, ds);
      add_values(w, at, key, r.v, r.dv, out);
      add_scores(ds, at, key, r.q, r.k, r.dq, r.dk);
    } else {
      const bool diff = r.kind == Kind::diff, dipole = r.kind == Kind::dipole;
      const std::vector<double>&q2 = diff ? r.q2 : r.q, &k2 = diff ? r.k2 : r.k, &v2 = dipole ? r.v2 : r.v;
      Floats t = diff ? products(q2, at, k2, key, r.D, visible) : s;
      for (float& x : t) x = diff ? round(x * static_cast<float>(r.scale)) : -x;
      const Floats g2 = dipole ? products(r.dout, at, v2, key, r.Dv, visible) : g, p1 = softmax(s), p2 = softmax(t);
      const float minus = dipole ? 1 : -1, a = kernels::has_w_plus(r.kind) ? static_cast<float>(r.w_plus[h]) : 1;
      const float b = minus * (kernels::has_w_minus(r.kind) ? static_cast<float>(r.w_minus[h]) : 1);
      Floats ga = g, gb = g2, w1 = p1, w2 = p2;
      for (std::size_t j = 0; j < s.size(); ++j) {
        if (kernels::has_w_plus(r.kind)) r.dw_plus[h] = static_cast<float>(r.dw_plus[h]) + p1[j] * g[j];
        if (kernels::has_w_minus(r.kind)) r.dw_minus[h] = static_cast<float>(r.dw_minus[h]) + minus * p2[j] * g2[j];
        ga[j] = round(a * g[j]), gb[j] = round(b * g2[j]);
        w1[j] = round(a * p1[j]), w2[j] = round(b * p2[j]);
        if (!dipole) w1[j] = round(w1[j] + w2[j]);
      }
      add_values(w1, at, key, r.v, r.dv, out);
      if (dipole) add_values(w2, at, key, r.v2, r.dv2, out);
      ds = softmax_backward(p1, ga);
      Floats dt = softmax_backward(p2, gb);
      for (std::size_t j = 0; !diff && j < ds.size(); ++j) ds[j] = round(ds[j] - dt[j]);
      add_scores(ds, at, key, r.q, r.k, r.dq, r.dk);
      if (diff) add_scores(dt, at, key, r.q2, r.k2, r.dq2, r.dk2);
    }
    for (std::int64_t d = 0; d < r.Dv; ++d) r.o[at * r.Dv + d] = round(out[d]);
  }
};

}  // namespace uvit::test
