// AdamW + EMA over all parameters in the emulator, against the formulas in double.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>

#include "cuda_on_cpu/norm/typed_buffer.h"
#include "kernels/optim/optim_cuda.h"
#include "support/compare.h"

namespace uvit::test {
namespace {

using Values = std::vector<double>;
using kernels::GradientFacts;

/// A few parameters in emulated memory with a table over them, and the same in double.
class Parameters {
 public:
  Parameters(const std::vector<std::size_t>& sizes, int averages) : averages_(averages) {
    std::vector<kernels::OptimTensor> tensors;
    std::vector<kernels::OptimChunk> chunks;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto seed = static_cast<unsigned>(10 * i);
      const std::size_t n = sizes[i];
      add(normal_values(n, seed), "parameter");
      add(normal_values(n, seed + 1, 0.1), "gradient");
      add(normal_values(n, seed + 2, 0.05), "exp_avg");
      Values squares = normal_values(n, seed + 3, 0.1);
      for (double& x : squares) x *= x;
      add(squares, "exp_avg_sq");
      for (int k = 0; k < averages; ++k) add(normal_values(n, seed + 4 + static_cast<unsigned>(k)), "average");
      kernels::OptimTensor t;
      t.parameter = at(i, 0).data();
      t.gradient = i == kWithoutGradient ? nullptr : at(i, 1).data();
      t.exp_avg = at(i, 2).data();
      t.exp_avg_sq = at(i, 3).data();
      for (int k = 0; k < averages; ++k) t.averages[k] = at(i, 4 + k).data();
      t.size = static_cast<std::int64_t>(n);
      t.keep = keep(i);
      tensors.push_back(t);
      for (std::int64_t first = 0; first < t.size; first += kernels::kOptimChunk) chunks.push_back({static_cast<std::int32_t>(i), 0, first});
    }
    tensors_ = std::make_unique<Buffer<kernels::OptimTensor>>("tensors", tensors);
    chunks_ = std::make_unique<Buffer<kernels::OptimChunk>>("chunks", chunks);
    partial_ = std::make_unique<Buffer<double>>("partial", chunks.size());
  }

  static constexpr std::size_t kWithoutGradient = 2;
  static float keep(std::size_t i) { return i == 1 ? 1.0F : 0.999F; }  // one without decay
  kernels::OptimTable table() const { return {tensors_->data(), chunks_->data(), static_cast<std::int32_t>(chunks_->size())}; }
  double* partial() const { return partial_->data(); }
  std::size_t count() const { return tensors_->size(); }
  /// Array `which` of parameter i: parameter, gradient, exp_avg, exp_avg_sq, averages.
  Buffer<float>& at(std::size_t i, int which) const {
    return *arrays_[i * static_cast<std::size_t>(4 + averages_) + static_cast<std::size_t>(which)];
  }
  std::vector<Values> all() const {
    std::vector<Values> values;
    for (const auto& array : arrays_) values.push_back(as_doubles(*array));
    return values;
  }

 private:
  void add(const Values& values, const char* name) {
    arrays_.push_back(std::make_unique<Buffer<float>>(name, std::vector<float>(values.begin(), values.end())));
  }
  int averages_;
  std::vector<std::unique_ptr<Buffer<float>>> arrays_;
  std::unique_ptr<Buffer<kernels::OptimTensor>> tensors_;
  std::unique_ptr<Buffer<kernels::OptimChunk>> chunks_;
  std::unique_ptr<Buffer<double>> partial_;
};

kernels::AdamWFactors factors_of(int averages) {
  kernels::AdamWFactors f;
  f.mix1 = 0.01F;
  f.beta2 = 0.999F;
  f.mix2 = 0.001F;
  f.minus_rate = -2e-3F;
  f.correction2 = 0.3F;
  f.eps = 1e-8F;
  f.num_averages = averages;
  for (int k = 0; k < averages; ++k) {
    f.average_keep[k] = 1 - 0.1F * static_cast<float>(k + 1);
    f.average_mix[k] = 0.1F * static_cast<float>(k + 1);
  }
  return f;
}

double norm_of(const Parameters& parameters) {
  double squares = 0;
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    if (i == Parameters::kWithoutGradient) continue;
    for (const double g : as_doubles(parameters.at(i, 1))) squares += g * g;
  }
  return std::sqrt(squares);
}

/// What adamw_ema_cuda should make of `before`, all arrays of one parameter.
void step_in_double(std::vector<Values>& before, std::size_t i, const kernels::AdamWFactors& f, double factor) {
  const std::size_t first = i * static_cast<std::size_t>(4 + f.num_averages);
  Values &p = before[first], &g = before[first + 1], &m = before[first + 2], &v = before[first + 3];
  for (std::size_t e = 0; e < p.size(); ++e) {
    if (i != Parameters::kWithoutGradient) {
      const double gradient = g[e] * factor;
      m[e] += f.mix1 * (gradient - m[e]);
      v[e] = f.beta2 * v[e] + f.mix2 * gradient * gradient;
      p[e] = p[e] * Parameters::keep(i) + f.minus_rate * m[e] / (std::sqrt(v[e]) / f.correction2 + f.eps);
    }
    for (int k = 0; k < f.num_averages; ++k) {
      double& average = before[first + 4 + static_cast<std::size_t>(k)][e];
      average = f.average_keep[k] * average + f.average_mix[k] * p[e];
    }
  }
}

const std::vector<std::size_t> kSizes = {1, 300, 70, 8192, 8193, 20000};

TEST_CASE("CUDA optimizer: norm, clipping and loss scale", "[optim][races]") {
  const Parameters parameters({5, 300, 70, 9000}, 0);
  const Buffer<GradientFacts> facts("facts", 1);
  const double norm = norm_of(parameters);
  for (const double unscale : {1.0, 1.0 / 1024}) {
    for (const double max_norm : {0.0, 0.5 * norm * unscale, 2 * norm * unscale}) {
      kernels::gradient_facts_cuda(parameters.table(), unscale, max_norm, parameters.partial(), facts.data(), nullptr);
      const double scaled = norm * unscale;
      CHECK(facts[0].norm == Approx(scaled).epsilon(1e-13));
      const double clip = max_norm > 0 && max_norm < scaled ? max_norm / (scaled + 1e-6) : 1.0;
      CHECK(facts[0].factor == Approx(unscale * clip).epsilon(1e-6));
    }
  }
}

TEST_CASE("CUDA optimizer: AdamW and the averages, many sizes at once", "[optim]") {
  for (const int averages : {0, 1, 4}) {
    const Parameters parameters(kSizes, averages);
    const kernels::AdamWFactors f = factors_of(averages);
    const Buffer<GradientFacts> facts("facts", 1);
    std::vector<Values> expected = parameters.all();
    double factor = 1;
    if (averages > 0) {
      kernels::gradient_facts_cuda(parameters.table(), 0.5, 0.1, parameters.partial(), facts.data(), nullptr);
      factor = facts[0].factor;
      CHECK(factor < 0.5);
    }
    kernels::adamw_ema_cuda(parameters.table(), f, averages > 0 ? facts.data() : nullptr, nullptr);
    for (std::size_t i = 0; i < kSizes.size(); ++i) step_in_double(expected, i, f, factor);
    const std::vector<Values> found = parameters.all();
    for (std::size_t a = 0; a < found.size(); ++a) {
      check_close("array " + std::to_string(a), found[a], expected[a], 6 * 0x1p-24 * (1 + max_abs(expected[a])));
    }
  }
}

TEST_CASE("CUDA optimizer: gradients that are not finite leave everything as it was", "[optim]") {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const Parameters parameters({5, 300, 70, 9000}, 2);
    parameters.at(3, 1)[8999] = bad;
    const Buffer<GradientFacts> facts("facts", 1);
    kernels::gradient_facts_cuda(parameters.table(), 1, 1, parameters.partial(), facts.data(), nullptr);
    CHECK(!std::isfinite(facts[0].norm));
    CHECK(std::isnan(facts[0].factor));
    parameters.at(3, 1)[8999] = 0;  // so that the arrays can be compared
    const std::vector<Values> before = parameters.all();
    kernels::adamw_ema_cuda(parameters.table(), factors_of(2), facts.data(), nullptr);
    CHECK(parameters.all() == before);
  }
}

TEST_CASE("CUDA optimizer: the same bits in every order of threads", "[optim]") {
  std::vector<double> norms;
  for (std::uint32_t seed : {0u, 3u}) {
    const cuda::emulator::Scope scope({seed, {}, false});
    const Parameters parameters({5, 300, 70, 9000}, 0);
    const Buffer<GradientFacts> facts("facts", 1);
    kernels::gradient_facts_cuda(parameters.table(), 1, 1, parameters.partial(), facts.data(), nullptr);
    norms.push_back(facts[0].norm);
  }
  CHECK(norms[0] == norms[1]);
}

}  // namespace
}  // namespace uvit::test
