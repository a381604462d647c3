#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "diffusion/autocast.h"
#include "model/uvit.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// A U-ViT of three blocks whose attention is all of one kind.
UViTOptions tiny_options(const std::string& kind, const std::string& backend, const std::vector<std::string>& softmax_blocks = {}) {
  UViTOptions o;
  o.height = o.width = 12;
  o.channels = 1;
  o.patch_size = 2;
  o.embed_dim = 32;
  o.depth = 2;
  o.num_heads = 4;
  o.attention_backend = backend;
  ModelConfig plan;
  plan.depth = o.depth;
  plan.attention = {kind};
  plan.softmax_blocks = softmax_blocks;
  o.plan = make_plan(plan);
  return o;
}

at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed) { return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed)); }

/// Adds to every weight a normal draw times `size` times its own magnitude.
void perturb(UViT& model, double size, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : model.parameters()) parameter.mul_(1 + size * normal(parameter.sizes().vec(), seed++));
}

/// Losses of `steps` steps of AdamW that teach the network to take the noise out of smooth images.
/// On one thread: a tensor of this size is not worth waking a second one.
std::vector<double> train_losses(UViT& model, int steps) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  torch::optim::AdamW optimizer(model.parameters(), torch::optim::AdamWOptions(2e-3));
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) {
    const auto seed = static_cast<std::uint64_t>(step);
    const at::Tensor clean = at::upsample_bilinear2d(normal({8, 1, 3, 3}, 2 * seed), {12, 12}, true), noise = normal({8, 1, 12, 12}, 2 * seed + 1);
    const at::Tensor t = at::arange(8, at::kFloat) / 8, level = t.view({-1, 1, 1, 1});
    const at::Tensor loss = at::mse_loss(model.forward((1 - level) * clean + level * noise, 999 * t), noise);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    losses.push_back(loss.item<double>());
  }
  at::set_num_threads(threads);
  return losses;
}

std::vector<double> losses_of(const std::string& kind, const std::string& backend, int steps, double perturbation = 0, std::uint64_t seed = 0) {
  UViT model(tiny_options(kind, backend));
  model.initialise(5);
  if (perturbation > 0) perturb(model, perturbation, seed);
  return train_losses(model, steps);
}

double mean_of(const std::vector<double>& values, std::size_t begin, std::size_t end) {
  double sum = 0;
  for (std::size_t i = begin; i < end; ++i) sum += values[i];
  return sum / static_cast<double>(end - begin);
}

double largest_relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]) / std::abs(b[i]));
  return largest;
}

}  // namespace

TEST_CASE("every kind learns, with both back ends") {
  for (const AttentionKind& row : attention_kinds()) {
    for (const std::string backend : {"fused", "eager"}) {
      INFO(row.name << " " << backend);
      const std::vector<double> losses = losses_of(row.name, backend, 40);
      CHECK(std::all_of(losses.begin(), losses.end(), [](double loss) { return std::isfinite(loss); }));
      CHECK(mean_of(losses, 32, 40) < 0.8 * mean_of(losses, 0, 4));
    }
  }
}

TEST_CASE("every kind learns in bfloat16 autocast, its weights in float32") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    std::vector<double> losses;
    {
      const AutocastGuard autocast("bf16", at::kCPU);
      losses = losses_of(row.name, "fused", 12);
    }
    const std::vector<double> single = losses_of(row.name, "fused", 12);
    CHECK(largest_relative_difference(losses, single) < 0.05);
    CHECK(mean_of(losses, 8, 12) < mean_of(losses, 0, 4));
  }
}

TEST_CASE("every kind: initial values of its own parameters come from their names") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    UViT one(tiny_options(row.name, "fused")), two(tiny_options(row.name, "eager"));
    one.initialise(3);
    two.initialise(3);
    const auto values = one.named_parameters(), twins = two.named_parameters();
    double squares = 0, count = 0;
    for (const auto& item : values) {
      const std::string& name = item.key();
      INFO(name);
      CHECK(at::equal(item.value(), twins[name]));
      if (name.ends_with(".w_plus") || name.ends_with(".w_minus") || name.ends_with(".subln.weight")) CHECK(item.value().eq(1).all().item<bool>());
      if (name.ends_with(".attn.v2.weight")) CHECK(item.value().std().item<double>() == Approx(0.02).epsilon(0.1));
      if (name.find(".lambda_") == std::string::npos) continue;
      squares += item.value().square().sum().item<double>();
      count += static_cast<double>(item.value().numel());
    }
    CHECK((count > 0) == (row.name == "differential"));
    if (count > 0) CHECK(std::sqrt(squares / count) == Approx(0.1).epsilon(0.3));
  }
}

TEST_CASE("the back end is a lossless switch: softmax losses agree to 1e-4 over 50 steps, cog as closely as float32 lets any two runs agree") {
  CHECK(largest_relative_difference(losses_of("softmax", "fused", 50), losses_of("softmax", "eager", 50)) < 1e-4);

  const std::vector<double> eager = losses_of("cog", "eager", 50);
  double spread = 0;
  for (std::uint64_t run = 1; run <= 4; ++run) {
    spread = std::max(spread, largest_relative_difference(losses_of("cog", "eager", 50, 1e-7, 1000 * run), eager));
  }
  const double difference = largest_relative_difference(losses_of("cog", "fused", 50), eager);
  INFO("fused differs by " << difference << ", perturbed eager runs by " << spread);
  CHECK(difference <= 2 * spread);
}
