// Losses and gradients that are not finite: made by data (latents with NaN) and by learning rates, never by hooks in the program.
#include <torch/torch.h>

#include <catch2/catch.hpp>
#include <set>

#include "checkpoint/checkpoint.h"
#include "core/random.h"
#include "data/latent_index.h"
#include "io/safetensors.h"
#include "support/scratch.h"
#include "train/diagnosis.h"
#include "train/tiny_run.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;
using Catch::Contains;

namespace {

constexpr std::int64_t kImages = 64, kBatch = 4;

/// Latents of 2 x 4 x 4; those of the images in `broken` are NaN.
Config latents_with_nan(const ScratchFolder& folder, const std::set<std::int64_t>& broken) {
  Config config = tiny_config(folder.path());
  at::Tensor moments = torch::zeros({kImages, 4, 4, 4}), labels = torch::arange(kImages) % 3;
  for (std::int64_t i = 0; i < kImages; ++i) {
    moments[i].slice(0, 0, 2).fill_(0.1 * static_cast<double>(i % 3) - 0.1);
    moments[i].slice(0, 2, 4).fill_(-2);
    if (broken.contains(i)) moments[i][0][0][0] = std::numeric_limits<float>::quiet_NaN();
  }
  for (const bool train : {true, false}) {
    const fs::path split = split_folder(folder / "latents", train);
    fs::create_directories(split);
    write_safetensors(shard_path(split, "latents", 0), to_tensor_file({{"moments", moments}, {"labels", labels.to(at::kLong)}}));
    write_latent_index(split, {.count = kImages, .shard_size = kImages, .channels = 2, .height = 4, .width = 4, .scale_factor = 1, .flips = false,
                               .autoencoder = "none", .source = "a test", .num_classes = 3, .class_names = {"a", "b", "c"}, .mean = {0, 0}, .std = {1, 1}});
  }
  config.data.dataset = "latents";
  config.data.path = (folder / "latents").string();
  config.data.image_size = {4};
  config.data.channels = 2;
  config.data.scale_factor = 1;
  config.data.flip = false;
  config.model.patch_size = 2;
  config.train.batch_size = kBatch;
  config.train.log_every = 1;
  config.train.eval_every = 0;
  return config;
}

/// The image that training meets at place `sample` of the first epoch.
std::int64_t image_at(const Config& config, std::int64_t sample) {
  return random_permutation(kImages, config.train.seed, 0)[static_cast<std::size_t>(sample)];
}

double optimizer_steps(const NamedTensors& optimizer) {
  for (const auto& [name, tensor] : optimizer)
    if (name == "step") return tensor.item<double>();
  return -1;
}

void check_equal(const NamedTensors& a, const NamedTensors& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].first);
    CHECK(at::equal(a[i].second, b[i].second));
  }
}

}  // namespace

TEST_CASE("a step whose loss is not finite is left out and counted: weights, moments and averages stay, the data goes on") {
  const ScratchFolder data, scratch;
  const std::int64_t broken = image_at(tiny_config(data.path()), 4 * kBatch + 1);  // in the fifth step
  Config config = latents_with_nan(data, {broken});
  config.train.checkpoint_every = 1;
  config.train.keep_checkpoints = 0;
  config.train.steps = 5;  // the last step is saved, good or bad
  train({config, scratch / "run"});
  config.train.steps = 8;
  const TrainResult result = train({config, scratch / "run", true});
  CHECK(result.step == 8);
  const auto fourth = load_checkpoint(scratch / "run/checkpoints/step-4"), fifth = load_checkpoint(scratch / "run/checkpoints/step-5");
  check_equal(fourth.second.model, fifth.second.model);
  check_equal(fourth.second.optimizer, fifth.second.optimizer);
  for (const auto& [profile, ema] : fourth.second.ema) check_equal(ema, fifth.second.ema.at(profile));
  CHECK(fifth.first.images_seen == fourth.first.images_seen + kBatch);
  CHECK(fifth.first.bad_steps_in_a_row == 1);
  const auto [last, tensors] = load_checkpoint(result.checkpoint);
  CHECK(last.skipped_steps == 1);
  CHECK(last.bad_steps_in_a_row == 0);
  CHECK(optimizer_steps(tensors.optimizer) == 7);
  const auto metrics = metrics_without_times(scratch / "run");
  REQUIRE(metrics.size() == 8);
  CHECK(metrics[3].at("skipped_steps") == 0);
  CHECK(metrics[3].at("update_ratio") > 0);
  CHECK(metrics[3].at("max_attention_score") > 0);
  CHECK(metrics[4].at("skipped_steps") == 1);
  CHECK(metrics[4].at("loss").is_null());
  CHECK(metrics[4].at("grad_norm").is_null());
  CHECK(metrics[4].at("update_ratio") == 0);
  CHECK(metrics[7].at("loss").is_number());
}

TEST_CASE("bad steps in a row bring the last good checkpoint back, with other images; resumed in their midst the run is the same") {
  const ScratchFolder data, scratch;
  const Config tiny = tiny_config(data.path());
  Config config = latents_with_nan(data, {image_at(tiny, 4 * kBatch), image_at(tiny, 5 * kBatch + 3)});  // steps 5 and 6
  config.train.steps = 10;
  config.train.checkpoint_every = 3;
  config.train.max_bad_steps = 2;
  const TrainResult whole = train({config, scratch / "whole"});
  CHECK(whole.step == 10);
  const CheckpointState state = load_state(whole.checkpoint);
  CHECK(state.rollbacks == 1);
  CHECK(state.skipped_steps == 2);
  CHECK(state.images_seen == (10 + 3) * kBatch);  // steps 4 to 6 were taken twice, with other images
  const auto metrics = metrics_without_times(scratch / "whole");
  REQUIRE(metrics.size() == 10);
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    CHECK(metrics[i].at("step") == i + 1);
    CHECK(metrics[i].contains("rollbacks") == (i >= 3));
    CHECK(metrics[i].at("loss").is_number());
  }

  for (const std::int64_t stop : {4, 5, 7}) {  // before, in the middle of, and after what goes wrong
    CAPTURE(stop);
    const fs::path parts = scratch / fmt::format("parts-{}", stop);
    config.train.steps = stop;
    train({config, parts});
    config.train.steps = 10;
    train({config, parts, true});
    const auto [state_again, again] = load_checkpoint(find_step_folder(parts));
    CHECK(state_again.images_seen == state.images_seen);
    CHECK(state_again.rollbacks == 1);
    check_equal(again.model, load_checkpoint(whole.checkpoint).second.model);
    check_equal(again.optimizer, load_checkpoint(whole.checkpoint).second.optimizer);
    CHECK(metrics_without_times(parts) == metrics);
  }
}

TEST_CASE("data that is bad throughout stops training, with the image named and the way back kept") {
  const ScratchFolder data, scratch;
  std::set<std::int64_t> broken;
  const Config tiny = tiny_config(data.path());
  for (std::int64_t sample = 3 * kBatch; sample < kImages; sample += kBatch) broken.insert(image_at(tiny, sample));
  Config config = latents_with_nan(data, broken);
  config.train.steps = 40;
  config.train.checkpoint_every = 3;
  config.train.max_bad_steps = 2;
  config.train.max_rollbacks = 1;
  const std::string message = error_of([&] { train({config, scratch / "run"}); });
  INFO(message);
  CHECK_THAT(message, Contains("2 steps in a row") && Contains("1 of 1 returns") && Contains("image 0 of the batch, as the data has it") && Contains("step-3"));
  CHECK(load_state(find_step_folder(scratch / "run")).step == 3);
}

TEST_CASE("bad steps before the first checkpoint: there is nothing to go back to") {
  const ScratchFolder data, scratch;
  std::set<std::int64_t> all;
  for (std::int64_t i = 0; i < kImages; ++i) all.insert(i);
  Config config = latents_with_nan(data, all);
  config.train.max_bad_steps = 3;
  const std::string message = error_of([&] { train({config, scratch / "run"}); });
  CHECK_THAT(message, Contains("no checkpoint was saved before"));
}

namespace {

struct Pass {
  Config config;
  std::unique_ptr<Schedule> schedule;
  std::unique_ptr<UViT> model;
  TrainingBatch batch;
};

Pass make_pass(const std::string& kind, const std::string& backend) {
  const ScratchFolder data;
  Pass pass;
  pass.config = tiny_config(data.path());
  pass.config.model.attention = {kind};
  pass.config.model.softmax_blocks = {};
  pass.config.model.attention_backend = backend;
  pass.schedule = make_schedule(pass.config.diffusion);
  pass.model = std::make_unique<UViT>(make_uvit_options(pass.config));
  pass.model->initialise(3);
  torch::manual_seed(5);
  pass.batch.x0 = torch::randn({3, 1, 8, 8});
  pass.batch.eps = torch::randn({3, 1, 8, 8});
  pass.batch.t = {0.2, 0.5, 0.8};
  pass.batch.labels = torch::tensor({0, 1, 3});
  return pass;
}

ForwardReport inspect(Pass& pass, std::int64_t images = 3) { return inspect_forward(*pass.model, pass.batch, pass.config, *pass.schedule, images, true); }

at::Tensor parameter(Pass& pass, const std::string& name) { return pass.model->named_parameters()[name].detach(); }

}  // namespace

TEST_CASE("largest attention scores: the same of both back ends, and quadratic in the projection") {
  for (const std::string kind : {"softmax", "cog", "differential", "dipole"}) {
    INFO(kind);
    Pass fused = make_pass(kind, "fused"), eager = make_pass(kind, "eager");
    const ForwardReport a = inspect(fused), b = inspect(eager);
    REQUIRE(a.max_scores.size() == 3);
    REQUIRE(b.max_scores.size() == 3);
    const std::vector<std::string> names = {"in_blocks.0", "mid_block", "out_blocks.0"};
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(a.max_scores[i].first == names[i]);
      CHECK(b.max_scores[i].first == names[i]);
      CHECK(a.max_scores[i].second > 0);
      CHECK(a.max_scores[i].second == Approx(b.max_scores[i].second).epsilon(1e-4));
    }
    CHECK(a.first_not_finite.empty());
    CHECK(first_not_finite(*fused.model, fused.batch, a).empty());
    CHECK(inspect(fused, 1).max_scores[0].second <= a.max_scores[0].second);
    parameter(fused, "in_blocks.0.attn.qkv.weight").mul_(2);
    CHECK(inspect(fused).max_scores[0].second == Approx(4 * a.max_scores[0].second).epsilon(1e-4));
  }
}

TEST_CASE("the first tensor that is not finite is named, with its layer") {
  Pass pass = make_pass("cog", "fused");
  const auto found = [&] { return first_not_finite(*pass.model, pass.batch, inspect(pass)); };
  parameter(pass, "mid_block.attn.qkv.weight").mul_(1e38);
  CHECK_THAT(found(), Contains("mid_block.attn.qkv"));
  CHECK_FALSE(std::isfinite(inspect(pass).max_score()));

  pass = make_pass("cog", "fused");
  parameter(pass, "out_blocks.0.mlp.fc1.bias").fill_(10);
  parameter(pass, "out_blocks.0.mlp.fc2.weight").fill_(3e38);
  CHECK_THAT(found(), Contains("out_blocks.0.mlp.fc2"));

  pass = make_pass("cog", "eager");
  parameter(pass, "in_blocks.0.mlp.fc1.bias")[0] = std::numeric_limits<float>::infinity();
  CHECK(found() == "parameter in_blocks.0.mlp.fc1.bias");

  pass = make_pass("cog", "fused");
  pass.batch.x0[1][0][0][0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(found() == "image 1 of the batch, as the data has it");

  pass = make_pass("cog", "fused");
  for (auto& item : pass.model->named_parameters()) item.value().mutable_grad() = at::zeros_like(item.value());
  parameter(pass, "patch_embed.proj.weight");
  for (const char* name : {"in_blocks.0.attn.proj.weight", "mid_block.norm2.weight"})
    pass.model->named_parameters()[name].mutable_grad().fill_(std::numeric_limits<float>::infinity());
  CHECK(found() == "the gradient of mid_block.norm2.weight");
}
