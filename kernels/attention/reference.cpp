#include "kernels/attention/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace uvit::kernels {
namespace {

using Values = Reference::Values;

double dot(const double* a, const double* b, std::int64_t n) { return std::inner_product(a, a + n, b, 0.0); }

double sign(double s) { return (s > 0) - (s < 0); }

/// The weights w(s) of one row with one normaliser; backward(g): given g = dL/dw, dL/ds.
struct Row {
  Values w, numerator_slope, g_slope;  // f'(s) / Z and g'(s) / Z of w = f(s) / Z, Z = c + sum g(s)

  Row(Kind kind, const Values& s, double keys) : w(s.size()), numerator_slope(s.size()), g_slope(s.size()) {
    const bool pick = kind == Kind::softpick, one = kind == Kind::softmax1, cog = kind == Kind::cog;
    double shift = pick || one ? 0 : -std::numeric_limits<double>::infinity();
    for (double x : s) shift = std::max(shift, cog ? std::abs(x) : x);
    if (kind == Kind::sigmoid) shift = 0;
    double z = pick ? 1e-8 * std::exp(-shift) : one ? std::exp(-shift) : 0;
    for (double x : s) z += pick ? std::abs(std::exp(x - shift) - std::exp(-shift)) : std::exp((cog ? std::abs(x) : x) - shift);
    for (std::size_t j = 0; j < s.size(); ++j) {
      const double e = std::exp((cog ? std::abs(s[j]) : s[j]) - shift) / z;
      w[j] = numerator_slope[j] = g_slope[j] = e;
      if (cog) w[j] = g_slope[j] = sign(s[j]) * e;
      if (cog && s[j] == 0) numerator_slope[j] = 0;
      if (kind == Kind::centered) w[j] = e - 1 / static_cast<double>(s.size());
      if (pick) w[j] = std::max(0.0, e - std::exp(-shift) / z), numerator_slope[j] = s[j] > 0 ? e : 0, g_slope[j] = sign(s[j]) * e;
      if (kind == Kind::sigmoid) w[j] = 1 / (1 + keys * std::exp(-s[j])), numerator_slope[j] = w[j] * (1 - w[j]), g_slope[j] = 0;
    }
    if (kind == Kind::centered) centre = 1 / static_cast<double>(s.size());
  }
  double centre = 0;
  Values backward(const Values& g) const {
    double delta = 0;
    for (std::size_t j = 0; j < w.size(); ++j) delta += (w[j] + centre) * g[j];
    Values ds(w.size());
    for (std::size_t j = 0; j < w.size(); ++j) ds[j] = numerator_slope[j] * g[j] - g_slope[j] * delta;
    return ds;
  }
};

void run(Reference& r, bool backward) {
  const bool two = has_two_normalisers(r.kind), diff = r.kind == Kind::diff, dipole = r.kind == Kind::dipole;
  auto zero = [](Values& x, const Values& like) { x.assign(like.size(), 0); };
  if (!backward) r.o.assign(static_cast<std::size_t>(r.B * r.H * r.L * r.Dv), 0);
  if (backward) {
    zero(r.dq, r.q), zero(r.dk, r.k), zero(r.dv, r.v), zero(r.dq2, r.q2), zero(r.dk2, r.k2), zero(r.dv2, r.v2);
    zero(r.dw_plus, r.w_plus), zero(r.dw_minus, r.w_minus);
  }
  for (std::int64_t bh = 0; bh < r.B * r.H; ++bh)
    for (std::int64_t i = 0; i < r.L; ++i) {
      const auto h = static_cast<std::size_t>(bh % r.H);
      const std::int64_t n = r.causal ? std::clamp<std::int64_t>(i + r.Lk - r.L + 1, 0, r.Lk) : r.Lk, row = bh * r.L + i, key = bh * r.Lk;
      Values s(static_cast<std::size_t>(n)), t(two ? s.size() : 0);
      const Values &q2 = diff ? r.q2 : r.q, &k2 = diff ? r.k2 : r.k, &v2 = dipole ? r.v2 : r.v;
      for (std::int64_t j = 0; j < n; ++j) {
        s[j] = r.scale * dot(&r.q[row * r.D], &r.k[(key + j) * r.D], r.D);
        if (two) t[j] = (diff ? r.scale : -r.scale) * dot(&q2[row * r.D], &k2[(key + j) * r.D], r.D);
      }
      const Row first(two ? Kind::softmax : r.kind, s, static_cast<double>(r.Lk)), second(Kind::softmax, t, 0);
      const double a = has_w_plus(r.kind) ? r.w_plus[h] : 1, minus = dipole ? 1 : -1, b = minus * (has_w_minus(r.kind) ? r.w_minus[h] : 1);
      if (!backward) {
        for (std::int64_t j = 0; j < n; ++j)
          for (std::int64_t d = 0; d < r.Dv; ++d)
            r.o[row * r.Dv + d] += a * first.w[j] * r.v[(key + j) * r.Dv + d] + (two ? b * second.w[j] * v2[(key + j) * r.Dv + d] : 0);
        continue;
      }
      Values g(s.size()), g2(t.size());
      for (std::int64_t j = 0; j < n; ++j) g[j] = dot(&r.dout[row * r.Dv], &r.v[(key + j) * r.Dv], r.Dv);
      for (std::int64_t j = 0; j < n && two; ++j) g2[j] = dot(&r.dout[row * r.Dv], &v2[(key + j) * r.Dv], r.Dv);
      const Values ds = first.backward(g), dt = second.backward(g2);
      auto push = [&](double x, std::int64_t j, const Values& q, const Values& k, Values& dq, Values& dk) {
        for (std::int64_t d = 0; d < r.D; ++d) dq[row * r.D + d] += x * k[(key + j) * r.D + d], dk[(key + j) * r.D + d] += x * q[row * r.D + d];
      };
      for (std::int64_t j = 0; j < n; ++j) {
        push(r.scale * a * ds[j], j, r.q, r.k, r.dq, r.dk);
        if (two) push((diff ? r.scale : -r.scale) * b * dt[j], j, q2, k2, diff ? r.dq2 : r.dq, diff ? r.dk2 : r.dk);
        for (std::int64_t d = 0; d < r.Dv; ++d) {
          r.dv[(key + j) * r.Dv + d] += a * first.w[j] * r.dout[row * r.Dv + d];
          if (two) (dipole ? r.dv2 : r.dv)[(key + j) * r.Dv + d] += b * second.w[j] * r.dout[row * r.Dv + d];
        }
        if (has_w_plus(r.kind)) r.dw_plus[h] += first.w[j] * g[j];
        if (has_w_minus(r.kind)) r.dw_minus[h] += minus * second.w[j] * g2[j];
      }
    }
}

}  // namespace

void Reference::forward() { run(*this, false); }
void Reference::backward() { run(*this, true); }

}  // namespace uvit::kernels
