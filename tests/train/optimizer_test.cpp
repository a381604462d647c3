#include <torch/torch.h>

#include <catch2/catch.hpp>
#include <set>

#include "core/random.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "train/adamw.h"
#include "train/ema.h"
#include "train/fused_update.h"

using namespace uvit;
using namespace uvit::test;

namespace {

at::Tensor normal(at::IntArrayRef shape, std::uint64_t index) {
  at::Tensor tensor = torch::empty(shape);
  RandomStream(5, RandomPurpose::noise, index).fill_normal({tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
  return tensor;
}

/// Parameters with gradients, large enough for several threads and of sizes that no vector length divides.
NamedTensors with_gradients() {
  NamedTensors parameters = {{"a.weight", normal({301, 997}, 1)}, {"a.bias", normal({13}, 2)}, {"pos_embed", normal({1, 7, 9}, 3)},
                             {"label_emb.weight", normal({4, 5}, 4)}, {"b.weight", normal({50001}, 5)}};
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].second.set_requires_grad(true);
    parameters[i].second.mutable_grad() = normal(parameters[i].second.sizes(), 10 + i);
  }
  return parameters;
}

OptimizerConfig some_config() {
  OptimizerConfig config;
  config.betas = {0.9, 0.95};
  config.weight_decay = 0.1;
  return config;
}

}  // namespace

TEST_CASE("the rate warms up from 0 and stays") {
  OptimizerConfig config;
  config.lr = 0.2;
  config.warmup_steps = 4;
  CHECK(learning_rate(config, 0, 100) == 0.0);
  CHECK(learning_rate(config, 1, 100) == 0.2 * 0.25);
  CHECK(learning_rate(config, 4, 100) == 0.2);
  CHECK(learning_rate(config, 99, 100) == 0.2);
  for (std::int64_t none : {0, -1}) {
    config.warmup_steps = none;
    CHECK(learning_rate(config, 0, 100) == 0.2);
  }
}

TEST_CASE("the cosine begins after the warm-up and ends at 0") {
  OptimizerConfig config;
  config.lr = 0.2;
  config.warmup_steps = 10;
  config.lr_schedule = "cosine";
  CHECK(learning_rate(config, 5, 110) == 0.1);
  CHECK(learning_rate(config, 10, 110) == 0.2);
  CHECK(learning_rate(config, 60, 110) == Approx(0.1));
  CHECK(learning_rate(config, 35, 110) == Approx(0.1 * (1 + std::sqrt(0.5))));
  CHECK(learning_rate(config, 110, 110) == Approx(0.0).margin(1e-15));
  CHECK(learning_rate(config, 200, 110) == Approx(0.0).margin(1e-15));
}

TEST_CASE("inverse square root and warmup-stable-decay") {
  OptimizerConfig config;
  config.lr = 0.2;
  config.warmup_steps = 10;
  config.lr_schedule = "inverse_sqrt";
  config.lr_reference_steps = 25;
  CHECK(learning_rate(config, 5, 1000) == 0.1);
  CHECK(learning_rate(config, 10, 1000) == 0.2);
  CHECK(learning_rate(config, 25, 1000) == 0.2);
  CHECK(learning_rate(config, 100, 1000) == Approx(0.1));
  CHECK(learning_rate(config, 900, 1000) == Approx(0.2 / 6));

  config.lr_schedule = "warmup_stable_decay";
  config.lr_decay_share = 0.25;
  CHECK(learning_rate(config, 5, 1000) == 0.1);
  CHECK(learning_rate(config, 10, 1000) == 0.2);
  CHECK(learning_rate(config, 750, 1000) == 0.2);
  CHECK(learning_rate(config, 900, 1000) == Approx(0.08));
  CHECK(learning_rate(config, 1000, 1000) == 0.0);
}

TEST_CASE("AdamW, EMA and clipping give the same bits on any number of threads") {
  const int before = at::get_num_threads();
  std::vector<NamedTensors> results;
  std::vector<double> norms;
  for (int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    NamedTensors parameters = with_gradients();
    Ema ema(0.9, parameters);
    AdamW optimizer(some_config(), parameters);
    for (int step = 0; step < 3; ++step) {
      norms.push_back(clip_gradients(parameters, 1.0));
      optimizer.step(1e-2);
      ema.update(parameters);
    }
    NamedTensors all = optimizer.state();
    all.insert(all.end(), parameters.begin(), parameters.end());
    all.insert(all.end(), ema.parameters().begin(), ema.parameters().end());
    results.push_back(all);
  }
  at::set_num_threads(before);
  for (std::size_t i = 3; i < norms.size(); ++i) CHECK(norms[i] == norms[i - 3]);
  for (std::size_t run = 1; run < results.size(); ++run) {
    REQUIRE(results[run].size() == results[0].size());
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      INFO(results[0][i].first);
      CHECK(at::equal(results[0][i].second, results[run][i].second));
    }
  }
}

TEST_CASE("the step and the averages in one pass are AdamW and then each average, bit for bit") {
  const bool in_double = GENERATE(false, true);
  const auto make = [&] {
    NamedTensors parameters = with_gradients();
    if (in_double) {
      for (auto& [name, parameter] : parameters) {
        const at::Tensor gradient = parameter.grad().to(at::kDouble);
        parameter = parameter.detach().to(at::kDouble).set_requires_grad(true);
        parameter.mutable_grad() = gradient;
      }
    }
    parameters[3].second.mutable_grad() = at::Tensor();  // its averages move all the same
    return parameters;
  };
  NamedTensors together = make(), apart = make();
  AdamW fused(some_config(), together), single(some_config(), apart);
  std::vector<Ema> fused_averages = {Ema(0.9, together), Ema(0.99, together)}, averages = {Ema(0.9, apart), Ema(0.99, apart)};
  const std::unique_ptr<FusedUpdate> update = make_fused_update(fused, fused_averages);
  REQUIRE(update);
  for (int step = 0; step < 3; ++step) {
    const double norm = update->measure(0.5, 0.7).item<double>();
    update->apply(1e-2);
    for (const auto& [name, parameter] : apart)
      if (parameter.grad().defined()) parameter.mutable_grad().mul_(0.5);
    CHECK(norm == clip_gradients(apart, 0.7));
    single.step(1e-2);
    for (Ema& average : averages) average.update(apart);
  }
  const NamedTensors state = fused.state(), expected_state = single.state();
  for (std::size_t i = 0; i < state.size(); ++i) CHECK(at::equal(state[i].second, expected_state[i].second));
  for (std::size_t i = 0; i < together.size(); ++i) {
    INFO(together[i].first);
    CHECK(at::equal(together[i].second, apart[i].second));
    for (std::size_t k = 0; k < averages.size(); ++k) CHECK(at::equal(fused_averages[k].parameters()[i].second, averages[k].parameters()[i].second));
  }
}

TEST_CASE("decay = matrices leaves out norms, biases, embeddings and attention scalars") {
  NamedTensors parameters;
  for (const auto& [name, shape] : std::vector<std::pair<std::string, std::vector<std::int64_t>>>{{"in_blocks.0.attn.qkv.weight", {6, 2}},
                                                                                                   {"patch_embed.proj.weight", {2, 1, 2, 2}},
                                                                                                   {"norm.weight", {2}},
                                                                                                   {"norm.bias", {2}},
                                                                                                   {"pos_embed", {1, 3, 2}},
                                                                                                   {"label_emb.weight", {4, 2}},
                                                                                                   {"in_blocks.0.attn.w_plus", {2}}})
    parameters.emplace_back(name, torch::ones(shape).set_requires_grad(true));
  for (auto& [name, parameter] : parameters) parameter.mutable_grad() = torch::zeros_like(parameter);  // so that decay alone moves them
  OptimizerConfig config = some_config();
  const std::string rule = GENERATE("all", "matrices");
  config.decay = rule;
  AdamW(config, parameters).step(0.5);
  const std::set<std::string> matrices = {"in_blocks.0.attn.qkv.weight", "patch_embed.proj.weight"};
  for (const auto& [name, parameter] : parameters) {
    INFO(rule << " " << name);
    const float expected = rule == "all" || matrices.contains(name) ? static_cast<float>(1 - 0.5 * 0.1) : 1.0f;
    CHECK(at::equal(parameter.detach(), torch::full_like(parameter, expected)));
  }
}

TEST_CASE("a parameter without a gradient is left alone") {
  NamedTensors parameters = with_gradients();
  const at::Tensor before = parameters[1].second.detach().clone();
  parameters[1].second.mutable_grad() = at::Tensor();
  CHECK(std::isfinite(clip_gradients(parameters, 0.1)));
  AdamW(some_config(), parameters).step(0.1);
  CHECK(at::equal(parameters[1].second.detach(), before));
}

TEST_CASE("clipping scales to the largest norm, and only down") {
  NamedTensors parameters = {{"a", torch::zeros({2}).set_requires_grad(true)}, {"b", torch::zeros({1}).set_requires_grad(true)}};
  const auto set = [&] {
    parameters[0].second.mutable_grad() = torch::tensor({2.0f, 3.0f});
    parameters[1].second.mutable_grad() = torch::tensor({6.0f});
  };
  set();
  CHECK(clip_gradients(parameters, 0.0) == 7.0);
  CHECK(clip_gradients(parameters, 8.0) == 7.0);
  CHECK(at::equal(parameters[1].second.grad(), torch::tensor({6.0f})));
  CHECK(clip_gradients(parameters, 3.5) == 7.0);
  check_tensor("a", parameters[0].second.grad(), torch::tensor({1.0f, 1.5f}), 1e-6);
  check_tensor("b", parameters[1].second.grad(), torch::tensor({3.0f}), 1e-6);
  set();
  parameters[1].second.mutable_grad()[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(clip_gradients(parameters, 1.0)));
}

TEST_CASE("optimizer and averages go on from their saved state") {
  NamedTensors whole = with_gradients(), halves = with_gradients();
  AdamW one(some_config(), whole), first(some_config(), halves);
  Ema ema_one(0.9, whole), ema_first(0.9, halves);
  for (int step = 0; step < 2; ++step) {
    one.step(0.01);
    ema_one.update(whole);
    first.step(0.01);
    ema_first.update(halves);
  }
  AdamW second(some_config(), halves);
  Ema ema_second(0.9, with_gradients());
  second.load(first.state());
  ema_second.load(ema_first.parameters());
  CHECK(second.steps_done() == 2);
  one.step(0.01);
  ema_one.update(whole);
  second.step(0.01);
  ema_second.update(halves);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    CHECK(at::equal(whole[i].second, halves[i].second));
    CHECK(at::equal(ema_one.parameters()[i].second, ema_second.parameters()[i].second));
  }

  NamedTensors foreign = first.state();
  foreign[0].second = torch::zeros({3});
  CHECK(error_of([&] { second.load(foreign); }).find("a.weight") != std::string::npos);
  foreign.erase(foreign.begin());
  CHECK(error_of([&] { second.load(foreign); }).find("a.weight") != std::string::npos);
}

TEST_CASE("an average starts as a copy and is named by its rate") {
  const NamedTensors parameters = {{"w", torch::tensor({1.0f, -2.0f})}};
  Ema ema(0.75, parameters);
  CHECK(ema.profile() == "0.75");
  CHECK(ema_profile(0.9999) == "0.9999");
  CHECK(at::equal(ema.parameters()[0].second, parameters[0].second));
  ema.update({{"w", torch::tensor({5.0f, 2.0f})}});
  CHECK(at::equal(ema.parameters()[0].second, torch::tensor({2.0f, -1.0f})));
  CHECK(at::equal(parameters[0].second, torch::tensor({1.0f, -2.0f})));
}
