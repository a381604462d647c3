#pragma once
#include <catch2/catch.hpp>
#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "kernels/attention/cpu/attention_cpu.h"
#include "tests/kernels/attention_plain.h"
#include "tests/support/compare.h"

namespace uvit::test {

using kernels::AttentionParams;
using kernels::Dtype;
using kernels::Kind;
using kernels::Reference;

/// The tensors that a kind has, by name: inputs, then results.
inline std::vector<std::pair<std::string, std::vector<double>*>> results_of(Reference& r) {
  std::vector<std::pair<std::string, std::vector<double>*>> all = {{"o", &r.o}, {"dq", &r.dq}, {"dk", &r.dk}, {"dv", &r.dv}};
  if (kernels::has_second_scores(r.kind)) all.insert(all.end(), {{"dq2", &r.dq2}, {"dk2", &r.dk2}});
  if (kernels::has_second_value(r.kind)) all.emplace_back("dv2", &r.dv2);
  if (kernels::has_w_plus(r.kind)) all.emplace_back("dw_plus", &r.dw_plus);
  if (kernels::has_w_minus(r.kind)) all.emplace_back("dw_minus", &r.dw_minus);
  return all;
}

/// A tensor [B, length, slots, H, width] as a model's packed projection holds it: the rows of one head are far apart, and begin at element `offset`.
class PackedTensor {
 public:
  PackedTensor(Dtype dtype, std::int64_t B, std::int64_t H, std::int64_t length, std::int64_t width, std::int64_t offset = 1)
      : dtype_(dtype),
        offset_(offset),
        B_(B),
        H_(H),
        length_(length),
        width_(width),
        bytes_(static_cast<std::size_t>((B * length * 2 * H * width + offset) * size()), 0x7f) {}

  void fill(const std::vector<double>& values) {
    each([&](std::int64_t contiguous, char* at) { put(at, static_cast<float>(values[static_cast<std::size_t>(contiguous)])); });
  }
  std::vector<double> values() {
    std::vector<double> out(static_cast<std::size_t>(B_ * H_ * length_ * width_));
    each([&](std::int64_t contiguous, char* at) { out[static_cast<std::size_t>(contiguous)] = get(at); });
    return out;
  }
  kernels::MutableView view() { return {bytes_.data() + offset_ * size(), length_ * 2 * H_ * width_, width_, 2 * H_ * width_}; }
  kernels::View input() {
    const kernels::MutableView v = view();
    return {v.data, v.stride_b, v.stride_h, v.stride_l};
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::int64_t size() const { return dtype_ == Dtype::f32 ? 4 : 2; }
  void put(char* at, float x) const {
    const std::uint16_t half = dtype_ == Dtype::f16 ? to_f16(x) : to_bf16(x);
    dtype_ == Dtype::f32 ? std::memcpy(at, &x, 4) : std::memcpy(at, &half, 2);
  }
  float get(const char* at) const {
    float x;
    std::uint16_t half;
    if (dtype_ == Dtype::f32) return std::memcpy(&x, at, 4), x;
    return std::memcpy(&half, at, 2), dtype_ == Dtype::f16 ? from_f16(half) : from_bf16(half);
  }
  template <class F>
  void each(F f) {
    const kernels::MutableView v = view();
    for (std::int64_t b = 0; b < B_; ++b)
      for (std::int64_t h = 0; h < H_; ++h)
        for (std::int64_t l = 0; l < length_; ++l)
          for (std::int64_t d = 0; d < width_; ++d)
            f(((b * H_ + h) * length_ + l) * width_ + d,
              static_cast<char*>(v.data) + size() * (b * v.stride_b + h * v.stride_h + l * v.stride_l + d));
  }
  Dtype dtype_;
  std::int64_t offset_, B_, H_, length_, width_;
  std::vector<char> bytes_;
};

/// The fused kernels on the inputs of a Reference, results as its own; every byte of the results for exact comparison.
struct FusedRun {
  Reference result;
  std::vector<std::vector<char>> bytes;
  std::vector<float> stats;

  FusedRun(const Reference& problem, Dtype dtype, const kernels::ParallelFor& parallel_for = kernels::serial_for)
      : FusedRun(problem, dtype, 1, [&](AttentionParams& p) {
          kernels::attention_forward(p, parallel_for);
          kernels::attention_backward(p, parallel_for);
        }) {}

  /// call(params) runs forward and backward; `offset`: see PackedTensor.
  FusedRun(const Reference& problem, Dtype dtype, std::int64_t offset, const std::function<void(AttentionParams&)>& call) : result(problem) {
    Reference& r = result;
    auto tensor = [&](std::int64_t length, std::int64_t width, const std::vector<double>* values) {
      PackedTensor t(dtype, r.B, r.H, length, width, offset);
      if (values) t.fill(*values);
      return t;
    };
    const bool scores = kernels::has_second_scores(r.kind), values = kernels::has_second_value(r.kind);
    PackedTensor q = tensor(r.L, r.D, &r.q), k = tensor(r.Lk, r.D, &r.k), v = tensor(r.Lk, r.Dv, &r.v), dout = tensor(r.L, r.Dv, &r.dout);
    PackedTensor q2 = tensor(r.L, r.D, scores ? &r.q2 : nullptr), k2 = tensor(r.Lk, r.D, scores ? &r.k2 : nullptr);
    PackedTensor v2 = tensor(r.Lk, r.Dv, values ? &r.v2 : nullptr), o = tensor(r.L, r.Dv, nullptr), dq = tensor(r.L, r.D, nullptr);
    PackedTensor dk = tensor(r.Lk, r.D, nullptr), dv = tensor(r.Lk, r.Dv, nullptr), dq2 = dq, dk2 = dk, dv2 = dv;
    const std::vector<float> w_plus(r.w_plus.begin(), r.w_plus.end()), w_minus(r.w_minus.begin(), r.w_minus.end());
    std::vector<float> dw_plus(w_plus.size()), dw_minus(w_minus.size());
    stats.resize(static_cast<std::size_t>(kernels::stats_per_row(r.kind) * r.B * r.H * r.L));
    AttentionParams p;
    p.kind = r.kind, p.dtype = dtype, p.causal = r.causal, p.scale = static_cast<float>(r.scale);
    p.B = r.B, p.H = r.H, p.L = r.L, p.Lk = r.Lk, p.D = r.D, p.Dv = r.Dv;
    p.q = q.input(), p.k = k.input(), p.v = v.input(), p.dout = dout.input(), p.o = o.view(), p.stats = stats.data();
    p.dq = dq.view(), p.dk = dk.view(), p.dv = dv.view();
    if (scores) p.q2 = q2.input(), p.k2 = k2.input(), p.dq2 = dq2.view(), p.dk2 = dk2.view();
    if (values) p.v2 = v2.input(), p.dv2 = dv2.view();
    p.w_plus = w_plus.data(), p.w_minus = w_minus.data(), p.dw_plus = dw_plus.data(), p.dw_minus = dw_minus.data();
    call(p);
    r.o = o.values(), r.dq = dq.values(), r.dk = dk.values(), r.dv = dv.values();
    if (scores) r.dq2 = dq2.values(), r.dk2 = dk2.values();
    if (values) r.dv2 = dv2.values();
    r.dw_plus.assign(dw_plus.begin(), dw_plus.end());
    r.dw_minus.assign(dw_minus.begin(), dw_minus.end());
    for (const PackedTensor* t : {&o, &dq, &dk, &dv, &dq2, &dk2, &dv2}) bytes.push_back(t->bytes());
    for (const std::vector<float>* t : {&dw_plus, &dw_minus, &stats}) {
      const char* begin = reinterpret_cast<const char*>(t->data());
      bytes.emplace_back(begin, begin + t->size() * sizeof(float));
    }
  }
};

struct Sizes {
  std::int64_t B, H, L, Lk, D, Dv;
};

inline double dot_product(const std::vector<double>& a, std::int64_t i, const std::vector<double>& b, std::int64_t j, std::int64_t width) {
  double sum = 0;
  for (std::int64_t d = 0; d < width; ++d) sum += a[static_cast<std::size_t>(i * width + d)] * b[static_cast<std::size_t>(j * width + d)];
  return sum;
}

inline bool well_conditioned(const Reference& r, std::int64_t row) {
  if (r.kind != Kind::cog && r.kind != Kind::softpick) return true;
  double first = 0;  // a causal row may see one key alone
  for (std::int64_t j = 0; j < r.Lk; ++j) {
    const std::int64_t key = row / r.L * r.Lk + j;
    const double s = dot_product(r.q, row, r.k, key, r.D),
                 size = std::sqrt(dot_product(r.q, row, r.q, row, r.D) * dot_product(r.k, key, r.k, key, r.D));
    if (r.kind == Kind::cog && std::abs(s) < 64 * 1.2e-7 * size) return false;
    if (j == 0) first = std::abs(std::exp(r.scale * s) - 1);
  }
  return r.kind == Kind::cog || first > 0.5;
}

/// Normal inputs that the dtype holds exactly. Queries are drawn again until no score of theirs is so near 0 that float32 may see its other sign
/// (|s| < 64 eps |q||k| scale): cog jumps there. Softpick's sensitivity is the inverse of sum |e^s - 1|, so rows where that is small are drawn again
/// too.
inline Reference random_problem(Kind kind, Sizes s, bool causal, Dtype dtype, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  auto draw = [&] { return static_cast<double>(rounded(normal(generator), dtype)); };
  auto tensor = [&](std::int64_t n) {
    std::vector<double> x(static_cast<std::size_t>(n));
    for (double& value : x) value = draw();
    return x;
  };
  Reference r;
  r.kind = kind, r.causal = causal, r.B = s.B, r.H = s.H, r.L = s.L, r.Lk = s.Lk, r.D = s.D, r.Dv = s.Dv;
  r.scale = static_cast<double>(static_cast<float>(1 / std::sqrt(static_cast<double>(s.D))));
  const std::int64_t heads = s.B * s.H;
  r.q = tensor(heads * s.L * s.D), r.k = tensor(heads * s.Lk * s.D), r.v = tensor(heads * s.Lk * s.Dv), r.dout = tensor(heads * s.L * s.Dv);
  if (kernels::has_second_scores(kind)) r.q2 = tensor(heads * s.L * s.D), r.k2 = tensor(heads * s.Lk * s.D);
  if (kernels::has_second_value(kind)) r.v2 = tensor(heads * s.Lk * s.Dv);
  for (std::int64_t h = 0; h < s.H; ++h) {
    if (kernels::has_w_plus(kind)) r.w_plus.push_back(0.75 + 0.125 * static_cast<double>(h));
    if (kernels::has_w_minus(kind)) r.w_minus.push_back(0.5 + 0.25 * static_cast<double>(h));
  }
  for (std::int64_t row = 0; row < heads * s.L; ++row)
    while (s.Lk > 0 && !well_conditioned(r, row))
      for (std::int64_t d = 0; d < s.D; ++d) r.q[static_cast<std::size_t>(row * s.D + d)] = draw();
  return r;
}

/// Longest row of a tensor.
inline double longest_row(const std::vector<double>& x, std::int64_t width) {
  double largest = 0;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(x.size()) / width; ++i)
    largest = std::max(largest, std::sqrt(dot_product(x, i, x, i, width)));
  return largest;
}

/// error(fused, double) <= 2x error(plain, double), 3x for gradients, plus the roundings that any path has (exp, sum, quotient and product in
/// float32; weight and result in bfloat16): of a result as large as o, or as the values where the kind subtracts one mean of them from another; and
/// for dq and dk of delta = rowsum(dout * o), which is what stays where a true gradient is 0.
inline void check_against_plain(const std::string& what, Reference& fused, Reference& exact, Reference& plain, Dtype dtype) {
  const double unit = dtype == Dtype::f32 ? 4 * std::ldexp(1, -24) : 2 * std::ldexp(1, dtype == Dtype::bf16 ? -8 : -11);
  const bool subtracts = kernels::has_two_normalisers(exact.kind) || exact.kind == Kind::centered;
  const double values = std::max(max_abs(exact.v), max_abs(exact.v2)),
               value_row = std::max(longest_row(exact.v, exact.Dv), longest_row(exact.v2, exact.Dv));
  const double delta = longest_row(exact.dout, exact.Dv) * (subtracts ? value_row : longest_row(exact.o, exact.Dv));
  const double q = std::max(max_abs(exact.q), max_abs(exact.q2)), k = std::max(max_abs(exact.k), max_abs(exact.k2));
  const auto fused_results = results_of(fused), exact_results = results_of(exact), plain_results = results_of(plain);
  for (std::size_t n = 0; n < exact_results.size(); ++n) {
    const auto& [name, reference] = exact_results[n];
    double plain_error = 0;
    for (std::size_t i = 0; i < reference->size(); ++i)
      plain_error = std::max(plain_error, std::abs((*plain_results[n].second)[i] - (*reference)[i]));
    double floor = unit * (name == "o" && subtracts ? values : max_abs(*reference));
    if (name.starts_with("dq") || name.starts_with("dk")) floor += unit * std::abs(exact.scale) * delta * (name[1] == 'q' ? k : q);
    if (name.starts_with("dv") && subtracts) floor += unit * max_abs(exact.dout);
    if (name.starts_with("dw")) floor += unit * delta * std::sqrt(static_cast<double>(exact.B * exact.L));
    check_close(what + ": " + name, *fused_results[n].second, *reference, (name == "o" ? 2 : 3) * plain_error + floor);
  }
}

/// Runs f with each instruction set of this machine selected; the best one is selected again at the end.
template <class F>
void with_each_isa(F f) {
  for (const std::string& isa : kernels::attention_isas_available()) {
    kernels::set_attention_isa(isa);
    f(isa);
  }
}

}  // namespace uvit::test
