// Residual + LayerNorm in the emulator, against the definition in double.
#include <catch2/catch.hpp>
#include <cmath>
#include <stdexcept>

#include "cuda_on_cpu/norm/typed_buffer.h"
#include "kernels/norm/norm_cuda.h"
#include "support/compare.h"

namespace uvit::test {
namespace {

using Values = std::vector<double>;
constexpr double kEps = 1e-5;

struct Reference {
  Values y, mean, rstd;
};

Reference normalise(const Values& sum, const Values& weight, const Values& bias) {
  const std::size_t width = weight.size(), rows = sum.size() / width;
  Reference r{Values(sum.size()), Values(rows), Values(rows)};
  for (std::size_t row = 0; row < rows; ++row) {
    const double* x = &sum[row * width];
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < width; ++c) mean += x[c] / static_cast<double>(width);
    for (std::size_t c = 0; c < width; ++c) variance += (x[c] - mean) * (x[c] - mean) / static_cast<double>(width);
    r.mean[row] = mean;
    r.rstd[row] = 1 / std::sqrt(variance + kEps);
    for (std::size_t c = 0; c < width; ++c) r.y[row * width + c] = (x[c] - mean) * r.rstd[row] * weight[c] + bias[c];
  }
  return r;
}

struct Gradients {
  Values dx, dweight, dbias;
};

/// Of sum over all of dy * y + dsum * sum.
Gradients differentiate(const Values& sum, const Values& weight, const Values& dy, const Values& dsum) {
  const std::size_t width = weight.size(), rows = sum.size() / width;
  const Reference r = normalise(sum, weight, Values(width, 0.0));
  Gradients g{Values(sum.size()), Values(width), Values(width)};
  for (std::size_t row = 0; row < rows; ++row) {
    const auto n = [&](std::size_t c) { return (sum[row * width + c] - r.mean[row]) * r.rstd[row]; };
    double mean_g = 0, mean_gn = 0;
    for (std::size_t c = 0; c < width; ++c) {
      const double of_y = dy[row * width + c], of_n = of_y * weight[c];
      mean_g += of_n / static_cast<double>(width);
      mean_gn += of_n * n(c) / static_cast<double>(width);
      g.dweight[c] += of_y * n(c);
      g.dbias[c] += of_y;
    }
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t i = row * width + c;
      g.dx[i] = r.rstd[row] * (dy[i] * weight[c] - mean_g - n(c) * mean_gn) + (dsum.empty() ? 0.0 : dsum[i]);
    }
  }
  return g;
}

struct Case {
  Dtype stream, branch;
  std::size_t rows, width;
  bool has_branch;
};

/// Operands of one case in emulated memory, the kernels' results, and how far these may be from double: a rounding of the results' size on storing
/// them, and sums of `width` or `rows` float32 terms.
struct Run {
  explicit Run(const Case& c)
      : shape(c),
        weight("weight", floats(normal_values(c.width, 1, 0.3, 1))),
        bias("bias", floats(normal_values(c.width, 2))),
        x("x", c.stream, normal_values(c.rows * c.width, 3, 2, 0.5)),
        branch("branch", c.branch, normal_values(c.rows * c.width, 4)),
        sum("sum", c.stream, c.rows * c.width),
        y("y", c.branch, c.rows * c.width),
        mean("mean", c.rows),
        rstd("rstd", c.rows) {
    params.rows = static_cast<std::int64_t>(c.rows);
    params.width = static_cast<std::int64_t>(c.width);
    params.stream_dtype = c.stream;
    params.branch_dtype = c.branch;
    params.eps = static_cast<float>(kEps);
    params.x = x.data();
    params.branch = c.has_branch ? branch.data() : nullptr;
    params.sum = c.has_branch ? sum.data() : nullptr;
    params.y = y.data();
    params.weight = weight.data();
    params.bias = bias.data();
    params.mean = mean.data();
    params.rstd = rstd.data();
  }
  static std::vector<float> floats(const Values& values) { return {values.begin(), values.end()}; }
  Values summed() const { return shape.has_branch ? sum.values() : x.values(); }

  Case shape;
  Buffer<float> weight, bias;
  TypedBuffer x, branch, sum, y;
  Buffer<float> mean, rstd;
  kernels::AddLayerNormParams params;
};

void check_forward(Run& run) {
  kernels::add_layer_norm_forward_cuda(run.params, nullptr);
  const Values sum = run.summed();
  if (run.shape.has_branch) {
    Values exact = run.x.values();
    const Values add = run.branch.values();
    for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += add[i];
    check_close("sum", sum, exact, 1.01 * rounding(run.shape.stream) * max_abs(exact));
  }
  const Reference reference = normalise(sum, as_doubles(run.weight), as_doubles(run.bias));
  const double terms = 0x1p-24 * std::sqrt(static_cast<double>(run.shape.width)) * 4;
  check_close("mean", as_doubles(run.mean), reference.mean, terms * max_abs(sum));
  check_close("rstd", as_doubles(run.rstd), reference.rstd, terms * 2 * max_abs(reference.rstd));
  check_close("y", run.y.values(), reference.y, (1.01 * rounding(run.shape.branch) + terms) * max_abs(reference.y));
}

void check_backward(Run& run, bool has_dsum) {
  const Case& c = run.shape;
  const std::size_t count = c.rows * c.width;
  const TypedBuffer dy("dy", c.branch, normal_values(count, 5)), dsum("dsum", c.stream, normal_values(count, 6));
  const TypedBuffer dx("dx", c.stream, count), dbranch("dbranch", c.branch, count);
  const Buffer<float> dweight("dweight", c.width), dbias("dbias", c.width);
  const Buffer<float> workspace("workspace", kernels::column_sums_workspace_cuda(run.params.rows, run.params.width) / sizeof(float));
  kernels::AddLayerNormGradients g;
  g.dy = dy.data();
  g.dsum = has_dsum ? dsum.data() : nullptr;
  g.dx = dx.data();
  g.dbranch = c.has_branch ? dbranch.data() : nullptr;
  g.dweight = dweight.data();
  g.dbias = dbias.data();
  kernels::add_layer_norm_backward_cuda(run.params, g, workspace.data(), nullptr);

  const Gradients reference = differentiate(run.summed(), as_doubles(run.weight), dy.values(), has_dsum ? dsum.values() : Values());
  const double terms = 0x1p-24 * 8 * std::sqrt(static_cast<double>(c.width)), over_rows = 0x1p-24 * 8 * std::sqrt(static_cast<double>(c.rows)) * 3;
  check_close("dx", dx.values(), reference.dx, (1.01 * rounding(c.stream) + terms) * max_abs(reference.dx));
  if (c.has_branch) check_close("dbranch", dbranch.values(), reference.dx, (1.01 * rounding(c.branch) + terms) * max_abs(reference.dx));
  check_close("dweight", as_doubles(dweight), reference.dweight, over_rows * (1 + max_abs(reference.dweight)));
  check_close("dbias", as_doubles(dbias), reference.dbias, over_rows * (1 + max_abs(reference.dbias)));
}

TEST_CASE("CUDA LayerNorm: the double gradients are those of the double definition", "[norm]") {
  const std::size_t width = 12;
  const Values sum = normal_values(2 * width, 1), weight = normal_values(width, 2);
  const Values dy = normal_values(2 * width, 3), dsum = normal_values(2 * width, 4);
  const auto value = [&](const Values& at, const Values& w) {
    const Reference r = normalise(at, w, Values(width, 0.0));
    double total = 0;
    for (std::size_t i = 0; i < at.size(); ++i) total += dy[i] * r.y[i] + dsum[i] * at[i];
    return total;
  };
  const Gradients g = differentiate(sum, weight, dy, dsum);
  Values dx(sum.size()), dweight(width);
  const double h = 1e-5;
  const auto slope = [&](Values& moved, std::size_t i, const auto& at) {
    const double old = moved[i];
    moved[i] = old + h;
    const double up = at();
    moved[i] = old - h;
    const double down = at();
    moved[i] = old;
    return (up - down) / (2 * h);
  };
  Values s = sum, w = weight;
  for (std::size_t i = 0; i < sum.size(); ++i) dx[i] = slope(s, i, [&] { return value(s, weight); });
  for (std::size_t c = 0; c < width; ++c) dweight[c] = slope(w, c, [&] { return value(sum, w); });
  check_close("dx", g.dx, dx, 1e-8);
  check_close("dweight", g.dweight, dweight, 1e-8);
}

TEST_CASE("CUDA LayerNorm: every dtype and shape, with and without a residual branch", "[norm][races]") {
  const Dtype f32 = Dtype::f32, bf16 = Dtype::bf16, f16 = Dtype::f16;
  const std::vector<std::pair<Dtype, Dtype>> dtypes = {{f32, f32}, {f32, bf16}, {f32, f16}, {bf16, bf16}, {f16, f16}};
  const std::vector<std::pair<std::size_t, std::size_t>> shapes = {{1, 4}, {3, 12}, {5, 128}, {9, 132}, {2, 516}};
  std::uint32_t seed = 0;
  for (const auto& [stream, branch] : dtypes) {
    for (const auto& [rows, width] : shapes) {
      const Case c{stream, branch, rows, width, (rows + width + seed) % 3 != 0};
      INFO("stream " << static_cast<int>(stream) << ", branch " << static_cast<int>(branch) << ", " << rows << " x " << width << ", branch there: "
                     << c.has_branch);
      const cuda::emulator::Scope scope({seed++, {}, false});
      Run run(c);
      check_forward(run);
      check_backward(run, seed % 2 == 0);
    }
  }
}

TEST_CASE("CUDA LayerNorm: more rows than blocks share, the same bits in every order of threads", "[norm]") {
  const Case c{Dtype::f32, Dtype::bf16, 2100, 8, true};
  std::vector<Values> results;
  for (std::uint32_t seed : {0u, 7u}) {
    const cuda::emulator::Scope scope({seed, {}, false});
    Run run(c);
    check_forward(run);
    check_backward(run, true);
    results.push_back(run.y.values());
  }
  CHECK(results[0] == results[1]);
}

TEST_CASE("CUDA LayerNorm: shared memory without bank conflicts", "[norm]") {
  const cuda::emulator::Scope scope({0, {}, false});
  Run run({Dtype::f32, Dtype::bf16, 8, 512, true});
  check_forward(run);
  check_backward(run, true);
  CHECK(scope.counters().shared_wavefronts > 0);
  CHECK(scope.counters().bank_conflicts == 0);
}

TEST_CASE("CUDA LayerNorm: what it does not take is refused", "[norm]") {
  for (const std::int64_t width : {0, 2, 6, 3076}) {
    CHECK(!kernels::add_layer_norm_supported_cuda(width));
    kernels::AddLayerNormParams params;
    params.width = width;
    CHECK_THROWS_WITH(kernels::add_layer_norm_forward_cuda(params, nullptr), Catch::Contains("width"));
  }
  kernels::AddLayerNormParams params;
  params.width = 8;
  params.stream_dtype = Dtype::bf16;
  params.branch_dtype = Dtype::f16;
  CHECK_THROWS_WITH(kernels::add_layer_norm_forward_cuda(params, nullptr), Catch::Contains("branch_dtype"));
}

}  // namespace
}  // namespace uvit::test
