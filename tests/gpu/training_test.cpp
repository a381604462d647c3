// Block, optimizer, sampling and a short training on a GPU, against the same on the CPU.
#include <torch/torch.h>

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <limits>

#include "diffusion/autocast.h"
#include "model/token_ops.h"
#include "samplers/generate.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "train/adamw.h"
#include "train/fused_update.h"
#include "train/ema.h"
#include "train/tiny_run.h"

namespace uvit::test {
namespace {

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kFloat));
}

double relative_error(const at::Tensor& value, const at::Tensor& exact) {
  const at::Tensor reference = exact.to(at::kCPU, at::kDouble);
  return (value.to(at::kCPU, at::kDouble) - reference).abs().max().item<double>() / reference.abs().max().item<double>();
}

/// Result and gradients of one pass through add_layer_norm and linear_gelu.
std::vector<at::Tensor> block_pass(at::Device device, at::ScalarType dtype, const std::string& precision) {
  const auto leaf = [&](const at::Tensor& x) { return x.to(device, dtype).detach().set_requires_grad(true); };
  torch::nn::Linear linear(96, 200);
  std::vector<at::Tensor> leaves = {leaf(normal({3, 50, 96}, 1)), leaf(normal({3, 50, 96}, 2)), leaf(normal({96}, 3)), leaf(normal({96}, 4)),
                                    leaf(normal({200, 96}, 5) * 0.1), leaf(normal({200}, 6))};
  linear->weight = leaves[4], linear->bias = leaves[5];
  at::Tensor loss;
  {
    const AutocastGuard autocast(precision, device.type());
    const at::Tensor branch = precision == "fp32" ? leaves[1] : leaves[1].to(at::kBFloat16);
    const auto [sum, normed] = add_layer_norm({leaves[2], leaves[3]}, leaves[0], branch);
    const at::Tensor out = linear_gelu(linear, normed);
    loss = out.to(dtype).square().mean() + sum.square().mean();
  }
  loss.backward();
  std::vector<at::Tensor> results = {loss.detach()};
  for (const at::Tensor& x : leaves) results.push_back(x.grad());
  return results;
}

}  // namespace

TEST_CASE("GPU block: residual, LayerNorm, GELU with bias, and their gradients", "[kernels]") {
  const std::vector<at::Tensor> exact = block_pass(at::kCPU, at::kDouble, "fp32");
  for (const auto& [precision, budget] : {std::pair("fp32", 1e-4), std::pair("bf16", 0.03)}) {
    const std::vector<at::Tensor> gpu = block_pass(at::kCUDA, at::kFloat, precision);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      INFO(precision << ", result " << i);
      CHECK(relative_error(gpu[i], exact[i]) < budget);
    }
  }
}

TEST_CASE("GPU optimizer: three launches do what AdamW and the averages do on the CPU", "[kernels]") {
  OptimizerConfig config;
  config.clip_grad_norm = 0.5;
  const std::vector<std::vector<std::int64_t>> shapes = {{5}, {300, 40}, {1}, {128, 129}};
  const auto make = [&](at::Device device) {
    NamedTensors parameters;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      parameters.emplace_back(fmt::format("p{}", i), normal(shapes[i], i).to(device).set_requires_grad(true));
    }
    return parameters;
  };
  NamedTensors cpu = make(at::kCPU), gpu = make(at::kCUDA);
  AdamW cpu_optimizer(config, cpu), gpu_optimizer(config, gpu);
  std::vector<Ema> cpu_emas, gpu_emas;
  for (const double rate : {0.5, 0.9}) {
    cpu_emas.emplace_back(rate, cpu);
    gpu_emas.emplace_back(rate, gpu);
  }
  const std::unique_ptr<FusedUpdate> update = make_fused_update(gpu_optimizer, gpu_emas);
  REQUIRE(update);
  for (std::uint64_t step = 0; step < 5; ++step) {
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      cpu[i].second.mutable_grad() = normal(shapes[i], 100 * step + i);
      gpu[i].second.mutable_grad() = cpu[i].second.grad().to(at::kCUDA);
    }
    const double norm = clip_gradients(cpu, config.clip_grad_norm);
    cpu_optimizer.step(1e-2);
    for (Ema& ema : cpu_emas) ema.update(cpu);
    CHECK(update->measure(1, config.clip_grad_norm).item<double>() == Approx(norm).epsilon(1e-9));
    update->apply(1e-2);
  }
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    CHECK(relative_error(gpu[i].second.detach(), cpu[i].second.detach()) < 1e-5);
    for (std::size_t k = 0; k < cpu_emas.size(); ++k) {
      CHECK(relative_error(gpu_emas[k].parameters()[i].second, cpu_emas[k].parameters()[i].second) < 1e-5);
    }
  }
  gpu[1].second.mutable_grad()[7][7] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor before = gpu[3].second.detach().clone();
  CHECK(!std::isfinite(update->measure(1, 0).item<double>()));
  update->apply(1e-2);
  CHECK(gpu[3].second.detach().equal(before));
}

TEST_CASE("GPU training: the loss of the CPU's run, in every precision", "[training]") {
  const ScratchFolder data, scratch;
  const auto loss_of = [&](const std::string& device, const std::string& precision) {
    Config config = tiny_config(data.path());
    config.train.device = device;
    config.train.precision = precision;
    return train({config, scratch / (device + precision)}).eval_loss;
  };
  const double expected = loss_of("cpu", "fp32");
  CHECK(loss_of("cuda", "fp32") == Approx(expected).epsilon(1e-3));
  CHECK(loss_of("cuda", "bf16") == Approx(expected).epsilon(0.05));
  CHECK(loss_of("cuda", "fp16") == Approx(expected).epsilon(0.05));
}

TEST_CASE("GPU sampling: a CUDA graph changes no bit, and the images are the CPU's", "[sampling]") {
  const ScratchFolder data;
  Config config = tiny_config(data.path());
  config.sample.batch_size = 4;
  config.sample.num_steps = 8;
  const auto draw = [&](at::Device device, bool graph) {
    UViT model(make_uvit_options(config));
    model.initialise(3);
    model.to(device);
    GenerateRequest request;
    request.cuda_graph = graph;
    for (std::uint64_t i = 0; i < 6; ++i) {
      request.seeds.push_back(i);
      if (config.data.num_classes > 0) request.labels.push_back(static_cast<std::int64_t>(i) % config.data.num_classes);
    }
    std::vector<at::Tensor> images(6);
    generate(model, config, request, [&](std::size_t index, const at::Tensor& image) { images[index] = image.clone(); });
    return at::stack(images);
  };
  const at::Tensor cpu = draw(at::kCPU, false), plain = draw(at::kCUDA, false), graphed = draw(at::kCUDA, true);
  CHECK(graphed.equal(plain));
  CHECK((plain - cpu).abs().max().item<double>() < 0.02 * cpu.abs().max().item<double>());
  config.sample.precision = "bf16";
  CHECK(draw(at::kCUDA, true).equal(draw(at::kCUDA, false)));
}

}  // namespace uvit::test
