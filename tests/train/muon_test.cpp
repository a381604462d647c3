#include <torch/torch.h>

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "checkpoint/checkpoint.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "train/muon.h"
#include "train/tiny_run.h"

using namespace uvit;
using namespace uvit::test;

namespace {

OptimizerConfig muon_config() {
  OptimizerConfig config;
  config.name = "muon";
  config.lr = 1e-3;
  config.muon_lr = 0.02;
  config.weight_decay = 0.1;
  return config;
}

at::Tensor seeded(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kDouble));
}

/// A parameter with a gradient.
std::pair<std::string, at::Tensor> with_gradient(const std::string& name, const at::Tensor& value, const at::Tensor& gradient) {
  at::Tensor parameter = value.clone().set_requires_grad(true);
  parameter.mutable_grad() = gradient.clone();
  return {name, parameter};
}

}  // namespace

TEST_CASE("muon agrees with torch.optim.Muon") {
  const TensorFile file = read_safetensors(fixtures() / "muon.safetensors");
  for (const std::string name : {"square", "tall", "wide"}) {
    INFO(name);
    const at::Tensor gradients = load_tensor(file, name + ".gradients", at::kDouble), exact = load_tensor(file, name + ".f64", at::kDouble);
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      const at::Tensor weight = load_tensor(file, name + ".start", dtype, true);
      Muon muon(muon_config(), {{"mid_block.mlp.fc1.weight", weight}});
      for (std::int64_t step = 0; step < 4; ++step) {
        weight.mutable_grad() = gradients[step].to(dtype);
        muon.step(1e-3);
      }
      check_tensor(c10::toString(dtype), weight, exact, dtype == at::kDouble ? 1e-12 : 1e-5);
    }
    check_tensor("torch in bfloat16", exact, load_tensor(file, name + ".bf16", at::kDouble), 0.002);
  }
}

TEST_CASE("orthogonalise brings all singular values near 1 and keeps the singular vectors") {
  for (const auto& [rows, columns] : {std::pair(6, 6), std::pair(10, 4), std::pair(4, 10)}) {
    const at::Tensor m = seeded({rows, columns}, 3);
    const auto [u, s, vt] = at::_linalg_svd(m, false, true, {});
    const at::Tensor inner = at::mm(at::mm(u.t(), orthogonalise(m)), vt.t());
    CHECK(max_abs(inner - at::diag(inner.diagonal())) < 1e-12);
    CHECK(inner.diagonal().min().item<double>() > 0.5);
    CHECK(inner.diagonal().max().item<double>() < 1.3);
  }
  CHECK(max_abs(orthogonalise(at::zeros({3, 3}))) == 0);
}

TEST_CASE("the block's matrices are muon's, stacked maps each by itself, and the rest is AdamW's") {
  const at::Tensor value = seeded({6, 2}, 1), gradient = seeded({6, 2}, 2);
  const auto step = [&](const std::string& name, const at::Tensor& v, const at::Tensor& g) {
    const auto parameter = with_gradient(name, v, g);
    Muon muon(muon_config(), {parameter});
    muon.step(5e-4);  // half of optimizer.lr, and so of muon_lr
    return parameter.second.detach();
  };
  const at::Tensor stacked = step("in_blocks.0.attn.qkv.weight", value, gradient);
  for (std::int64_t map = 0; map < 3; ++map) {
    const at::Tensor alone = step("out_blocks.1.attn.proj.weight", value.narrow(0, 2 * map, 2), gradient.narrow(0, 2 * map, 2));
    check_tensor("map", stacked.narrow(0, 2 * map, 2), alone, 1e-14);
    const at::Tensor expected = value.narrow(0, 2 * map, 2) * (1 - 0.01 * 0.1) - 0.01 * orthogonalise(gradient.narrow(0, 2 * map, 2));
    check_tensor("formula", alone, expected, 1e-14);
  }
  CHECK_FALSE(at::allclose(stacked, step("mid_block.attn.proj.weight", value, gradient)));
  CHECK(stacked_maps("mid_block.mlp.w12.weight") == 2);
  CHECK(stacked_maps("in_blocks.3.adaLN_modulation.1.weight") == 6);

  NamedTensors parameters, twins;
  for (const char* name : {"pos_embed", "label_emb.weight", "decoder_pred.weight", "in_blocks.0.norm1.weight", "in_blocks.0.mlp.fc1.bias"}) {
    const at::Tensor v = std::string(name).ends_with("bias") || std::string(name).find("norm") != std::string::npos ? value.flatten() : value;
    parameters.push_back(with_gradient(name, v, v * 0.5));
    twins.push_back(with_gradient(name, v, v * 0.5));
  }
  Muon muon(muon_config(), parameters);
  CHECK(muon.matrices().empty());
  muon.step(1e-3);
  AdamW(muon_config(), twins).step(1e-3);
  for (std::size_t i = 0; i < parameters.size(); ++i) CHECK(at::equal(parameters[i].second, twins[i].second));
}

TEST_CASE("optimizers are found by name, and what muon cannot use is refused") {
  OptimizerConfig config = muon_config();
  CHECK(dynamic_cast<Muon*>(make_optimizer(config, {}).get()) != nullptr);
  config.name = "adamw";
  CHECK(dynamic_cast<AdamW*>(make_optimizer(config, {}).get()) != nullptr);
  config.name = "mun";
  CHECK_THAT(error_of([&] { make_optimizer(config, {}); }), Catch::Contains("'muon'"));
  config = muon_config();
  config.lr = 0;
  CHECK_THAT(error_of([&] { make_optimizer(config, {}); }), Catch::Contains("optimizer.lr = 0"));
}

TEST_CASE("a run with muon resumes to the bits of an uninterrupted one, and trains") {
  const ScratchFolder data, scratch;
  Config config = tiny_config(data.path());
  config.optimizer.name = "muon";
  config.model.mlp = "swiglu";
  config.train.steps = 12;
  config.train.checkpoint_every = 5;
  const TrainResult whole = train({config, scratch / "whole"});
  Config half = config;
  half.train.steps = 5;
  train({half, scratch / "halves"});
  const TrainResult resumed = train({config, scratch / "halves", true});
  CHECK(resumed.loss == whole.loss);
  const CheckpointTensors ours = load_checkpoint(resumed.checkpoint).second, theirs = load_checkpoint(whole.checkpoint).second;
  REQUIRE(ours.optimizer.size() == theirs.optimizer.size());
  bool has_momentum = false;
  for (std::size_t i = 0; i < ours.optimizer.size(); ++i) {
    INFO(ours.optimizer[i].first);
    CHECK(at::equal(ours.optimizer[i].second, theirs.optimizer[i].second));
    has_momentum = has_momentum || ours.optimizer[i].first == "muon.mid_block.attn.qkv.weight";
  }
  CHECK(has_momentum);
  for (std::size_t i = 0; i < ours.model.size(); ++i) CHECK(at::equal(ours.model[i].second, theirs.model[i].second));
  CHECK(metrics_without_times(scratch / "halves") == metrics_without_times(scratch / "whole"));
}
