// GELU with bias in the emulator, against the definition in double.
#include <catch2/catch.hpp>
#include <cmath>

#include "cuda_on_cpu/norm/typed_buffer.h"
#include "kernels/norm/norm_cuda.h"
#include "support/compare.h"

namespace uvit::test {
namespace {

using Values = std::vector<double>;

double cdf(double u) { return 0.5 * std::erfc(-u / std::sqrt(2.0)); }
double gelu(double u) { return u * cdf(u); }
double gelu_slope(double u) { return cdf(u) + u * std::exp(-u * u / 2) / std::sqrt(2 * std::acos(-1.0)); }

struct Results {
  Values y, dx, dbias;
};

/// Runs both kernels and compares.
Results check(Dtype dtype, std::size_t rows, std::size_t width, double scale) {
  const Values bias_values = normal_values(width, 1);
  const Buffer<float> bias("bias", std::vector<float>(bias_values.begin(), bias_values.end()));
  const TypedBuffer x("x", dtype, normal_values(rows * width, 2, scale)), dy("dy", dtype, normal_values(rows * width, 3));
  const TypedBuffer y("y", dtype, rows * width), dx("dx", dtype, rows * width);
  const Buffer<float> dbias("dbias", width);
  kernels::BiasGeluParams params;
  params.rows = static_cast<std::int64_t>(rows);
  params.width = static_cast<std::int64_t>(width);
  params.dtype = dtype;
  params.x = x.data();
  params.bias = bias.data();
  params.y = y.data();
  params.dy = dy.data();
  params.dx = dx.data();
  params.dbias = dbias.data();
  const Buffer<float> workspace("workspace", kernels::column_sums_workspace_cuda(params.rows, params.width) / sizeof(float));
  kernels::bias_gelu_forward_cuda(params, nullptr);
  kernels::bias_gelu_backward_cuda(params, workspace.data(), nullptr);

  const Values xs = x.values(), dys = dy.values(), biases = as_doubles(bias);
  Results expected{Values(xs.size()), Values(xs.size()), Values(width)};
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const double u = xs[i] + biases[i % width];
    expected.y[i] = gelu(u);
    expected.dx[i] = dys[i] * gelu_slope(u);
    expected.dbias[i % width] += expected.dx[i];
  }
  const double budget = 1.01 * rounding(dtype) + 8 * 0x1p-24;
  const Results found{y.values(), dx.values(), as_doubles(dbias)};
  check_close("y", found.y, expected.y, budget * max_abs(expected.y));
  check_close("dx", found.dx, expected.dx, budget * max_abs(expected.dx));
  check_close("dbias", found.dbias, expected.dbias, 8 * 0x1p-24 * std::sqrt(static_cast<double>(rows)) * (1 + max_abs(expected.dx)) * 3);
  return found;
}

TEST_CASE("CUDA GELU: the double slope is that of the double definition", "[norm]") {
  for (double u = -6; u <= 6; u += 0.37) CHECK(gelu_slope(u) == Approx((gelu(u + 1e-5) - gelu(u - 1e-5)) / 2e-5).margin(1e-8));
}

TEST_CASE("CUDA GELU with bias: every dtype and shape", "[norm][races]") {
  const std::vector<std::pair<std::size_t, std::size_t>> shapes = {{1, 4}, {3, 12}, {4, 128}, {9, 132}, {6, 516}};
  std::uint32_t seed = 0;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    for (const auto& [rows, width] : shapes) {
      INFO("dtype " << static_cast<int>(dtype) << ", " << rows << " x " << width);
      const cuda::emulator::Scope scope({seed++, {}, false});
      check(dtype, rows, width, 2);
    }
  }
}

TEST_CASE("CUDA GELU with bias: large inputs, more rows than blocks share, the same bits in every order of threads", "[norm]") {
  check(Dtype::f32, 4, 8, 1e4);
  std::vector<Results> results;
  for (std::uint32_t seed : {0u, 5u}) {
    const cuda::emulator::Scope scope({seed, {}, false});
    results.push_back(check(Dtype::bf16, 2100, 8, 2));
  }
  CHECK(results[0].dx == results[1].dx);
  CHECK(results[0].dbias == results[1].dbias);
}

TEST_CASE("CUDA GELU with bias: a width that it does not take is refused", "[norm]") {
  kernels::BiasGeluParams params;
  params.width = 6;
  CHECK_THROWS_WITH(kernels::bias_gelu_forward_cuda(params, nullptr), Catch::Contains("width"));
}

}  // namespace
}  // namespace uvit::test
