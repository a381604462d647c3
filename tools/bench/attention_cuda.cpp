#include <torch/torch.h>

#include "attention_cuda.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "attention/device.h"
#include "attention/eager.h"
#include "attention/operator.h"

namespace {

using at::Tensor;

struct Shape {
  std::int64_t B, H, L, D;
};

/// LibTorch's attention by one back end alone; it throws where that does not take the operands.
enum class Sdpa { flash, cudnn };
Tensor sdpa(const Tensor& qkv, Sdpa backend) {
  at::globalContext().setSDPUseFlash(backend == Sdpa::flash);
  at::globalContext().setSDPUseCuDNN(backend == Sdpa::cudnn);
  at::globalContext().setSDPUseMath(false);
  at::globalContext().setSDPUseMemEfficient(false);
  const std::vector<Tensor> parts = qkv.transpose(1, 3).unbind(2);
  return at::scaled_dot_product_attention(parts[0], parts[1], parts[2]).transpose(1, 2).flatten(2);
}

struct Contestant {
  std::string name;
  std::function<Tensor(const Tensor& qkv)> forward;  // [B, L, 3, H, D] -> [B, L, H * D]
  int repeats = 0;                                   // of one measurement; 0: does not run here
  std::vector<double> times_ms{};
};

std::vector<Contestant> contestants(bool baselines) {
  std::vector<Contestant> all = {{"fused softmax", [](const Tensor& x) { return uvit::attention_packed(x, "softmax"); }},
                                 {"fused cog", [](const Tensor& x) { return uvit::attention_packed(x, "cog"); }}};
  if (baselines) {
    all.push_back({"SDPA flash", [](const Tensor& x) { return sdpa(x, Sdpa::flash); }});
    all.push_back({"SDPA cuDNN", [](const Tensor& x) { return sdpa(x, Sdpa::cudnn); }});
    all.push_back({"eager cog", [](const Tensor& x) { return uvit::eager_attention_packed(x, "cog"); }});
  }
  return all;
}

void run_once(const Contestant& c, const Tensor& qkv, const Tensor& dout, bool backward) {
  const Tensor out = c.forward(qkv);
  if (backward) torch::autograd::grad({out}, {qkv}, {dout});
}

double time_ms(const Contestant& c, const Tensor& qkv, const Tensor& dout, bool backward, int repeats) {
  at::cuda::CUDAEvent start(cudaEventDefault), stop(cudaEventDefault);
  start.record();
  for (int i = 0; i < repeats; ++i) run_once(c, qkv, dout, backward);
  stop.record();
  stop.synchronize();
  return static_cast<double>(start.elapsed_time(stop)) / repeats;
}

/// Largest difference of a kind's fused result and float64 on the CPU, over the largest value: a benchmark of wrong results is none.
void check(const Tensor& qkv, const char* kind, at::ScalarType dtype) {
  const Tensor few = qkv.narrow(0, 0, 1).detach();
  const Tensor exact = uvit::eager_attention_packed(few.to(at::kCPU, at::kDouble), kind);
  const double error = (uvit::attention_packed(few, kind).to(at::kCPU, at::kDouble) - exact).abs().max().item<double>();
  const double budget = (dtype == at::kFloat ? 1e-5 : 0.02) * exact.abs().max().item<double>();
  TORCH_CHECK(error <= budget, kind, ": the fused result is off by ", error);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure(std::vector<Contestant> all, const Tensor& qkv, const Tensor& dout, bool backward, const CudaBenchOptions& options, double flop) {
  for (Contestant& c : all) {
    try {
      for (int i = 0; i < 3; ++i) run_once(c, qkv, dout, backward);
      c.repeats = std::max(1, static_cast<int>(1e3 * options.seconds / time_ms(c, qkv, dout, backward, 3)));
    } catch (const std::exception& error) {
      fmt::print("    {:<14} does not run: {}\n", c.name, std::string(error.what()).substr(0, 100));
    }
  }
  for (int round = 0; round < options.rounds; ++round) {
    for (Contestant& c : all) {
      if (c.repeats > 0) c.times_ms.push_back(time_ms(c, qkv, dout, backward, c.repeats));
    }
  }
  for (const Contestant& c : all) {
    if (c.repeats == 0) continue;
    std::vector<double> ratios;
    for (std::size_t r = 0; r < c.times_ms.size(); ++r) ratios.push_back(c.times_ms[r] / all[0].times_ms[r]);
    const auto [low, high] = std::minmax_element(c.times_ms.begin(), c.times_ms.end());
    fmt::print("    {:<14} {:9.4f} ms  ({:.4f} to {:.4f})  {:7.1f} TFLOP/s  {:6.2f} times fused softmax\n", c.name, median(c.times_ms), *low, *high,
               flop / median(c.times_ms) / 1e9, median(ratios));
  }
}

void run_shape(const Shape& s, at::ScalarType dtype, const CudaBenchOptions& options) {
  const at::TensorOptions on_gpu = at::TensorOptions(at::kCUDA).dtype(dtype);
  const Tensor qkv = at::randn({s.B, s.L, 3, s.H, s.D}, on_gpu).set_requires_grad(true), dout = at::randn({s.B, s.L, s.H * s.D}, on_gpu);
  check(qkv, "softmax", dtype);
  check(qkv, "cog", dtype);
  const double flop = 4.0 * static_cast<double>(s.B * s.H * s.L * s.L * s.D);
  fmt::print("\nB {} H {} L {} D {}, {}: {:.3g} FLOP forward, 3.5 times that with backward\n", s.B, s.H, s.L, s.D, c10::toString(dtype), flop);
  const std::vector<Contestant> all = contestants(options.baselines);
  fmt::print("  forward\n");
  {
    const torch::NoGradGuard no_grad;
    measure(all, qkv, dout, false, options, flop);
  }
  fmt::print("  forward and backward\n");
  measure(all, qkv, dout, true, options, 3.5 * flop);
}

}  // namespace

void run_cuda_bench(const CudaBenchOptions& options) {
  uvit::select_device("cuda");
  at::manual_seed(0);
  fmt::print("{}; LibTorch {}; CUDA events, medians of {} rounds\n", uvit::describe_cuda(), TORCH_VERSION, options.rounds);
  const std::vector<std::pair<std::string, at::ScalarType>> dtypes = {{"bf16", at::kBFloat16}, {"fp16", at::kHalf}, {"fp32", at::kFloat}};
  for (const auto& [name, dtype] : dtypes) {
    if (options.dtype.empty() ? dtype == at::kFloat : options.dtype != name) continue;
    for (const Shape shape : {Shape{64, 8, 257, 64}, Shape{16, 16, 1025, 64}, Shape{4, 16, 4097, 64}, Shape{16, 8, 1025, 128}}) {
      if (options.only.empty() || options.only == std::to_string(shape.L)) run_shape(shape, dtype, options);
    }
  }
}
