// The operator on a GPU against float64 on the CPU, and beside plain operations of the same dtype on the same GPU.
#include <torch/torch.h>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "attention/operands.h"
#include "attention/operator.h"

namespace uvit::test {
namespace {

Operands on_gpu(const Operands& host, at::ScalarType dtype) {
  Operands copy = host;
  for (auto& [name, tensor] : copy.all()) {
    const bool head_weight = name[0] == 'w';
    *tensor = tensor->to(at::kCUDA, head_weight ? at::kFloat : dtype).detach().set_requires_grad(true);
  }
  return copy;
}

/// The operands as the GPU sees them, in float64 on the CPU.
Operands in_double(const Operands& gpu) {
  Operands copy = gpu;
  for (auto& [name, tensor] : copy.all()) *tensor = tensor->detach().to(at::kCPU, at::kDouble).set_requires_grad(true);
  return copy;
}

double error_of(const at::Tensor& value, const at::Tensor& exact) {
  return (value.to(at::kCPU, at::kDouble) - exact.to(at::kCPU, at::kDouble)).abs().max().item<double>();
}

/// error(fused) <= 2 error(plain operations of this dtype), 3 for gradients, plus a rounding of the result: plain operations may be lucky.
void check_case(kernels::Kind kind, const Sizes& sizes, at::ScalarType dtype, bool causal) {
  const char* name = kernels::kind_name(kind);
  INFO(fmt::format("{}, {}, L {}, Lk {}, D {}, Dv {}, causal {}", name, c10::toString(dtype), sizes.L, sizes.Lk, sizes.D, sizes.Dv, causal));
  REQUIRE(plain_path_reason(at::kCUDA, dtype, sizes.D, sizes.Dv).empty());
  const Operands host(kind, sizes, 11);
  const at::Tensor dout = seeded({sizes.B, sizes.H, sizes.L, sizes.Dv}, 99).to(at::kCUDA, dtype);
  const Results fused = run_attention(attention, on_gpu(host, dtype), name, dout, {}, causal);
  const Results plain = run_attention(eager_attention, on_gpu(host, dtype), name, dout, {}, causal);
  const Results exact = run_attention(eager_attention, in_double(on_gpu(host, dtype)), name, dout.to(at::kCPU, at::kDouble), {}, causal);
  const double rounding = dtype == at::kFloat ? 0x1p-22 : dtype == at::kHalf ? 0x1p-10 : 0x1p-7;
  for (const auto& [what, reference] : exact) {
    INFO(what);
    const double largest = reference.abs().max().item<double>();
    const double budget = (what == "out" ? 2 : 3) * error_of(plain.at(what), reference) + rounding * (1e-3 + largest);
    const double error = error_of(fused.at(what), reference);
    CHECK(error <= budget);
  }
}

}  // namespace

TEST_CASE("GPU attention: every kind, dtype and width", "[attention]") {
  const std::vector<Sizes> shapes = {
      {1, 2, 1, 1, 64, 64}, {2, 3, 65, 65, 64, 64}, {1, 2, 257, 257, 64, 64}, {1, 2, 63, 130, 72, 72}, {1, 1, 78, 31, 128, 128}};
  int turn = 0;
  for (const kernels::Kind kind : all_kinds()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const Sizes& sizes : shapes) check_case(kind, sizes, dtype, turn++ % 2 == 1);
    }
  }
}

TEST_CASE("GPU attention: values of another width", "[attention]") {
  for (const kernels::Kind kind : {kernels::Kind::softmax, kernels::Kind::cog, kernels::Kind::diff}) {
    check_case(kind, {2, 2, 65, 65, 32, 64}, at::kBFloat16, false);
    check_case(kind, {2, 2, 65, 65, 64, 128}, at::kFloat, false);
  }
}

TEST_CASE("GPU attention: softmax is LibTorch's", "[attention]") {
  const at::Tensor qkv = seeded({2, 257, 3, 8, 64}, 5).to(at::kCUDA, at::kBFloat16);
  const at::Tensor ours = attention_packed(qkv, "softmax");  // [B, L, H * D]
  const std::vector<at::Tensor> parts = qkv.transpose(1, 3).unbind(2);  // [B, H, L, D] each
  const at::Tensor theirs = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]).transpose(1, 2).flatten(2);
  CHECK(error_of(ours, theirs) <= 0x1p-7 * theirs.abs().max().item<double>());
}

TEST_CASE("GPU attention: the same bits in every run, and in a CUDA graph", "[attention]") {
  for (const char* kind : {"softmax", "cog", "sda"}) {
    const at::Tensor qkv = seeded({2, 130, 3, 4, 64}, 6).to(at::kCUDA, at::kBFloat16).set_requires_grad(true);
    std::vector<at::Tensor> outs, gradients;
    for (int run = 0; run < 2; ++run) {
      qkv.mutable_grad() = at::Tensor();
      const at::Tensor out = attention_packed(qkv, kind);
      out.square().sum().backward();
      outs.push_back(out.detach());
      gradients.push_back(qkv.grad().clone());
    }
    CHECK(outs[0].equal(outs[1]));
    CHECK(gradients[0].equal(gradients[1]));

    const torch::NoGradGuard no_grad;
    at::Tensor graphed;
    at::cuda::CUDAGraph graph;
    {
      const c10::cuda::CUDAStreamGuard side(c10::cuda::getStreamFromPool());
      attention_packed(qkv, kind);
      c10::cuda::getCurrentCUDAStream().synchronize();
      graph.capture_begin();
      graphed = attention_packed(qkv, kind);
      graph.capture_end();
    }
    graph.replay();
    CHECK(graphed.equal(outs[0]));
  }
}

TEST_CASE("GPU attention: views that begin anywhere are read right", "[attention]") {
  const at::Tensor flat = seeded({2 * 33 * 3 * 2 * 64 + 3}, 7).to(at::kCUDA, at::kBFloat16);
  const at::Tensor odd = flat.narrow(0, 3, 2 * 33 * 3 * 2 * 64).view({2, 33, 3, 2, 64});
  CHECK(attention_packed(odd, "cog").equal(attention_packed(odd.clone(), "cog")));
}

}  // namespace uvit::test
