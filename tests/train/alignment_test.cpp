#include <torch/torch.h>

#include "train/alignment.h"

#include <torch/script.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <functional>

#include "checkpoint/checkpoint.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "train/tiny_run.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// A TorchScript encoder whose tokens are `result`, of the means p [B, N, C] of squares of `side` pixels.
std::string write_encoder(const std::filesystem::path& folder, int side, const std::string& result = "torch.cat([p, 1 - p, p * p], 2)") {
  torch::jit::Module module("Encoder");
  module.define("def forward(self, x):\n  p = torch.avg_pool2d(x, [" + std::to_string(side) + ", " + std::to_string(side) +
                "]).flatten(2).transpose(1, 2)\n  return " + result + "\n");
  const std::string path = (folder / "encoder.pt").string();
  module.save(path);
  return path;
}

Config aligned_config(const std::filesystem::path& data, const std::string& encoder) {
  Config config = tiny_config(data);
  config.model.align_dim = 3;
  config.model.align_block = 1;
  config.train.align_encoder = encoder;
  config.train.align_size = 8;
  return config;
}

at::Tensor images() { return at::rand({2, 1, 8, 8}, at::make_generator<at::CPUGeneratorImpl>(3)) * 2 - 1; }

/// What the encoder of means over squares of 4 pixels says of images in [0, 1].
at::Tensor spelled_out(const at::Tensor& x) {
  std::vector<at::Tensor> tokens;
  for (const int row : {0, 4})
    for (const int column : {0, 4}) {
      const at::Tensor p = x.narrow(2, row, 4).narrow(3, column, 4).mean({2, 3});
      tokens.push_back(at::cat({p, 1 - p, p * p}, 1));
    }
  return at::stack(tokens, 1);
}

}  // namespace

TEST_CASE("an alignment encoder sees clean images in [0, 1], brought to its size, and its grid is brought to the patches") {
  const ScratchFolder folder;
  Config config = aligned_config(folder.path(), write_encoder(folder.path(), 4));
  const at::Tensor x = (images() + 1) / 2;
  check_tensor("as they are", make_alignment_encoder(config, false, at::kCPU)->features(images()), spelled_out(x), 1e-6);
  config.train.align_size = 16;
  config.train.align_encoder = write_encoder(folder.path(), 8);
  const at::Tensor larger = at::upsample_bicubic2d(x, {16, 16}, false).clamp(0, 1), means = at::avg_pool2d(larger, {8, 8}).flatten(2).transpose(1, 2);
  check_tensor("resized", make_alignment_encoder(config, false, at::kCPU)->features(images()), at::cat({means, 1 - means, means * means}, 2), 1e-6);
  // 4 x 4 tokens to 2 x 2 patches: the mean of each four.
  config.train.align_size = 8;
  config.train.align_encoder = write_encoder(folder.path(), 2);
  const at::Tensor fine = at::avg_pool2d(x, {2, 2}), all = at::cat({fine, 1 - fine, fine * fine}, 1);
  const at::Tensor expected = at::avg_pool2d(all, {2, 2}).flatten(2).transpose(1, 2);
  check_tensor("grid", make_alignment_encoder(config, false, at::kCPU)->features(images()), expected, 1e-6);
}

TEST_CASE("the alignment loss is minus the mean cosine, and pulls only on the projection") {
  const at::Tensor projected = torch::tensor({1.0F, 0.0F, 3.0F, 4.0F, 0.0F, 2.0F, 1.0F, 1.0F}).view({2, 2, 2}).set_requires_grad(true);
  const at::Tensor features = torch::tensor({2.0F, 0.0F, 4.0F, -3.0F, 0.0F, -1.0F, 0.0F, 5.0F}).view({2, 2, 2});
  const at::Tensor loss = alignment_loss(projected, features);
  check_tensor("loss", loss, torch::tensor({-0.5, 0.5 * (1 - std::sqrt(0.5))}, at::kDouble), 1e-6);
  loss.sum().backward();
  CHECK(max_abs(projected.grad()[0][0]) < 1e-6);
  CHECK(max_abs(projected.grad()[0][1]) > 0.01);
}

TEST_CASE("what cannot be aligned is refused before anything is written") {
  const ScratchFolder folder, scratch;
  const auto refusal = [&](const std::function<void(Config&)>& change) {
    Config config = aligned_config(folder.path(), write_encoder(folder.path(), 4));
    change(config);
    const std::string message = error_of([&] { train({config, scratch / "run"}); });
    CHECK_FALSE(std::filesystem::exists(scratch / "run"));
    return message;
  };
  const auto encoder = [&](int side, const std::string& result) {
    return refusal([&](Config& c) { c.train.align_encoder = write_encoder(folder.path(), side, result); });
  };
  CHECK_THAT(refusal([](Config& c) { c.train.align_encoder = ""; }), Catch::Contains("align_dim = 3") && Catch::Contains("align_encoder"));
  CHECK_THAT(refusal([](Config& c) { c.model.align_dim = 0; }), Catch::Contains("model.align_dim = 0"));
  CHECK_THAT(refusal([](Config& c) { c.model.align_dim = 4; }), Catch::Contains("encoder.pt") && Catch::Contains("[1, 4, 3]"));
  CHECK_THAT(refusal([](Config& c) { c.train.align_encoder = "nowhere.pt"; }), Catch::Contains("nowhere.pt"));
  CHECK_THAT(encoder(4, "(p, p)"), Catch::Contains("not one tensor"));
  CHECK_THAT(encoder(4, "torch.cat([p, p, p], 2)[:, 1:]"), Catch::Contains("3 tokens") && Catch::Contains("2 x 2"));
  CHECK_THAT(encoder(4, "torch.mm(x, x)"), Catch::Contains("encoder.pt fails on images"));
  const Config config = aligned_config(folder.path(), write_encoder(folder.path(), 4));
  CHECK_THAT(error_of([&] { make_alignment_encoder(config, true, at::kCPU); }), Catch::Contains("latents"));
}

TEST_CASE("alignment adds its gradient with its weight, is logged, and its projector is kept in checkpoints") {
  const ScratchFolder folder, scratch;
  Config config = aligned_config(folder.path(), write_encoder(folder.path(), 4));
  config.train.steps = 40;
  config.train.ema_decay = {0.5};
  config.train.checkpoint_every = config.train.eval_every = 40;
  config.optimizer.lr = 3e-3;
  config.optimizer.clip_grad_norm = 0;
  config.diffusion.label_dropout = 0.2;

  train({config, scratch / "aligned"});
  const auto lines = metrics_without_times(scratch / "aligned");
  const double first = lines.front().at("align_loss"), last = lines.back().at("align_loss");
  CHECK(first > -1);
  CHECK(last < first - 0.2);
  CHECK(last >= -1.000001);
  const LoadedModel loaded = load_model(scratch / "aligned");
  CHECK(loaded.model->named_parameters().contains("projector.4.weight"));

  // Weight 0: the rest of the network is trained as without an encoder.
  config.train.steps = 4;
  config.train.align_weight = 0;
  const NamedTensors with = load_checkpoint(train({config, scratch / "zero"}).checkpoint).second.model;
  config.model.align_dim = 0;
  config.train.align_encoder = "";
  const NamedTensors without = load_checkpoint(train({config, scratch / "none"}).checkpoint).second.model;
  REQUIRE(with.size() == without.size() + 6);
  for (std::size_t i = 0; i < without.size(); ++i) {
    REQUIRE(with[i].first == without[i].first);
    CHECK(at::equal(with[i].second, without[i].second));
  }
  CHECK_FALSE(metrics_without_times(scratch / "none").back().contains("align_loss"));
}

TEST_CASE("aligned gradients accumulated over micro-batches are those of the whole batch") {
  const ScratchFolder folder, scratch;
  Config config = aligned_config(folder.path(), write_encoder(folder.path(), 4));
  config.train.steps = 1;
  config.train.align_weight = 2;
  config.optimizer.clip_grad_norm = 0;
  const NamedTensors whole = load_checkpoint(train({config, scratch / "whole"}).checkpoint).second.optimizer;
  config.train.micro_batch_size = 2;
  const NamedTensors parts = load_checkpoint(train({config, scratch / "parts"}).checkpoint).second.optimizer;
  for (std::size_t i = 0; i < whole.size(); ++i)
    check_tensor(whole[i].first, parts[i].second, whole[i].second, 1e-6 * max_abs(whole[i].second) + 1e-9);
}

TEST_CASE("training starts from the weights of another image size, and its averages with it") {
  const ScratchFolder small_data, data, scratch;
  Config config = tiny_config(small_data.path());
  config.train.steps = 4;
  train({config, scratch / "small"});
  const LoadedModel small = load_model(scratch / "small");
  write_idx_split(data.path(), "train", 23, 12, 3);
  write_idx_split(data.path(), "t10k", 10, 12, 3);
  config.data.path = data.path().string();
  config.data.image_size = {12};
  config.train.init_from = (scratch / "small").string();
  config.train.steps = 1;  // whose rate is 0
  config.optimizer.weight_decay = 0;
  const CheckpointTensors tensors = load_checkpoint(train({config, scratch / "large"}).checkpoint).second;
  const NamedTensors source = named_parameters(*small.model);
  for (const NamedTensors& ours : {tensors.model, tensors.ema.at("0.9")}) {
    for (std::size_t i = 0; i < ours.size(); ++i) {
      INFO(ours[i].first);
      const at::Tensor expected = ours[i].first == "pos_embed" ? interpolate_pos_embed(source[i].second, 2, 2, 3, 3) : source[i].second;
      check_tensor("start", ours[i].second, expected, 1e-6);
    }
  }
  config.model.embed_dim = 32;
  CHECK_THAT(error_of([&] { train({config, scratch / "wider"}); }), Catch::Contains("'pos_embed'"));
  CHECK_FALSE(std::filesystem::exists(scratch / "wider"));
}
