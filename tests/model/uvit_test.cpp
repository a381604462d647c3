#include <torch/torch.h>

#include "model/uvit.h"

#include <ATen/autocast_mode.h>

#include <cmath>
#include <map>
#include <string>

#include "core/error.h"
#include "io/safetensors.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// A small network of one attention kind; every other block official.
UViTOptions small_options(const std::string& kind = "softmax") {
  UViTOptions o;
  o.height = 24;
  o.width = 40;
  o.channels = 3;
  o.patch_size = 8;
  o.embed_dim = 32;
  o.depth = 4;
  o.num_heads = 4;
  ModelConfig plan;
  plan.depth = o.depth;
  plan.attention = {kind};
  o.plan = make_plan(plan);
  return o;
}

at::Tensor seeded(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kFloat));
}

std::map<std::string, at::Tensor> parameters_of(const UViT& model) {
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, parameter] : named_parameters(model)) result.emplace(name, parameter);
  return result;
}

}  // namespace

TEST_CASE("a non-square image works with any patch that divides both sides, and every token sits where its pixels are") {
  for (const std::int64_t patch : {2, 4, 8}) {
    INFO("patch " << patch);
    UViTOptions o = small_options("cog");
    o.patch_size = patch;
    UViT model(o);
    model.initialise(3);
    const at::Tensor x = seeded({2, 3, 24, 40}, 1);
    CHECK(model.forward(x, at::tensor({5.0F, 900.0F})).sizes() == x.sizes());
    // The patches of a convolution, brought to the channel-fastest order of un-patchify, are the image again: raster order on both sides.
    const std::int64_t n = (24 / patch) * (40 / patch);
    const at::Tensor channel_last = patchify(x, patch).view({2, n, 3, patch, patch}).permute({0, 1, 3, 4, 2}).reshape({2, n, patch * patch * 3});
    CHECK(at::equal(unpatchify(channel_last, 3, 24, 40, patch), x));
  }
}

TEST_CASE("the patch product equals the strided convolution whose weight it uses") {
  const at::Tensor x = seeded({2, 3, 24, 40}, 1), weight = seeded({16, 3, 8, 8}, 2);
  const at::Tensor expected = at::conv2d(x, weight, {}, 8).flatten(2).transpose(1, 2);
  check_tensor("patches", at::linear(patchify(x, 8), weight.flatten(1)), expected, 1e-4);
}

TEST_CASE("initial values follow the official distributions") {
  UViTOptions o = small_options();
  o.embed_dim = 128;
  o.label_rows = 50;
  o.mlp_time_embed = true;
  o.qkv_bias = true;
  UViT model(o);
  model.initialise(7);
  for (const auto& [name, parameter] : named_parameters(model)) {
    INFO(name);
    const std::vector<double> values = values_of(parameter);
    const double n = static_cast<double>(values.size());
    double sum = 0, squares = 0;
    for (const double v : values) {
      sum += v;
      squares += v * v;
    }
    const double std = std::sqrt(squares / n);
    const bool is_bias = name.ends_with(".bias"), is_norm = name.find("norm") != std::string::npos;
    const bool is_conv = name.starts_with("patch_embed") || name.starts_with("final_layer");
    if (is_conv) {
      const double fan_in = name.starts_with("patch_embed") ? 3 * 8 * 8 : 3 * 3 * 3, bound = 1 / std::sqrt(fan_in);
      CHECK(max_abs(values) <= bound);
      CHECK(max_abs(values) > 0.2 * bound);
      if (values.size() > 1000) CHECK(std == Approx(bound / std::sqrt(3.0)).epsilon(0.03));
    } else if (is_norm) {
      CHECK(parameter.eq(is_bias ? 0 : 1).all().item<bool>());
    } else if (is_bias) {
      CHECK(max_abs(values) == 0);
    } else {
      const double expected = name == "label_emb.weight" ? 1.0 : 0.02;
      CHECK(std == Approx(expected).epsilon(5 / std::sqrt(2 * n)));
      CHECK(std::abs(sum / n) < 5 * expected / std::sqrt(n));
    }
  }
}

TEST_CASE("twins of two attention kinds, and of other depths, share every common initial value; another seed shares none") {
  UViTOptions deeper = small_options("cog");
  deeper.depth = 6;
  deeper.plan.kinds.assign(7, "cog");
  UViT softmax(small_options("softmax")), cog(small_options("cog")), deep(deeper), other(small_options("softmax"));
  softmax.initialise(11);
  cog.initialise(11);
  deep.initialise(11);
  other.initialise(12);
  const auto cog_values = parameters_of(cog), deep_values = parameters_of(deep), other_values = parameters_of(other);
  std::size_t compared = 0;
  for (const auto& [name, value] : parameters_of(softmax)) {
    INFO(name);
    CHECK(at::equal(value, cog_values.at(name)));
    CHECK(at::equal(value, deep_values.at(name)));
    const bool constant = value.min().item<float>() == value.max().item<float>();
    CHECK(at::equal(value, other_values.at(name)) == constant);
    ++compared;
  }
  CHECK(compared == parameters_of(softmax).size());
  // Two parameters of one shape are different draws.
  CHECK_FALSE(at::equal(cog_values.at("in_blocks.0.attn.qkv.weight"), cog_values.at("in_blocks.1.attn.qkv.weight")));
}

TEST_CASE("the official CIFAR-10 network of 44 million parameters, counted") {
  UViTOptions o;
  o.embed_dim = 512;
  o.depth = 12;
  o.num_heads = 8;
  o.patch_size = 2;
  o.plan.kinds.assign(13, "softmax");
  const UViT model(o);
  const std::int64_t c = 512, tokens = 1 + 16 * 16, patch = 2 * 2 * 3;
  const std::int64_t block = 2 * 2 * c + 3 * c * c + (c * c + c) + (4 * c * c + 4 * c) + (4 * c * c + c);  // norms, qkv, proj, fc1, fc2
  const std::int64_t expected = tokens * c + (patch * c + c) + 13 * block + 6 * (2 * c * c + c) + 2 * c + (patch * c + patch) + (9 * 3 * 3 + 3);
  CHECK(model.num_parameters() == expected);
  CHECK(expected == 44255328);
  // 13 blocks: linears and the two products of attention, then skips, patches, prediction, convolution.
  const double blocks = 13.0 * (257.0 * 12 * c * c + 2.0 * 257 * 257 * c);
  const double products = blocks + 6.0 * 257 * 2 * c * c + 256.0 * patch * c + 257.0 * patch * c + 1024.0 * 81;
  CHECK(model.flops_per_image() == Approx(2 * products));
}

TEST_CASE("autocast to bfloat16 stays near float32, trains every parameter and returns the image's dtype") {
  for (const std::string kind : {"softmax", "cog"}) {
    INFO(kind);
    UViTOptions o = small_options(kind);
    o.label_rows = 3;
    o.mlp_time_embed = true;
    UViT model(o);
    model.initialise(5);
    const at::Tensor x = seeded({2, 3, 24, 40}, 1), t = at::tensor({3.0F, 700.0F}), y = at::tensor({0, 2}, at::kLong);
    const at::Tensor exact = model.forward(x, t, y);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    const at::Tensor reduced = model.forward(x, t, y);
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    CHECK(reduced.scalar_type() == at::kFloat);
    check_tensor("bf16", reduced, exact, 0.03 * max_abs(exact));
    CHECK_FALSE(at::equal(reduced, exact));
    reduced.square().mean().backward();
    for (const auto& [name, parameter] : named_parameters(model)) {
      INFO(name);
      CHECK(parameter.grad().scalar_type() == at::kFloat);
      CHECK(parameter.grad().isfinite().all().item<bool>());
      CHECK(parameter.grad().abs().max().item<float>() > 0);
    }
  }
}

TEST_CASE("options follow from the configuration") {
  Config config;
  config.data.image_size = {24, 40};
  config.data.num_classes = 10;
  config.model.attention = {"cog"};
  UViTOptions o = make_uvit_options(config);
  CHECK(o.height == 24);
  CHECK(o.width == 40);
  CHECK(o.label_rows == 10);
  CHECK(o.plan.kinds.front() == "softmax");
  CHECK(o.plan.mid() == "cog");
  config.diffusion.label_dropout = 0.1;
  CHECK(make_uvit_options(config).label_rows == 11);
  config.data.num_classes = 0;
  CHECK(make_uvit_options(config).label_rows == 0);
}

TEST_CASE("inputs that do not fit are refused with both shapes") {
  UViTOptions o = small_options();
  UViT plain(o);
  o.label_rows = 4;
  UViT labelled(o);
  o.label_rows = 0;
  o.context_dim = 6;
  o.context_tokens = 2;
  UViT text(o);
  const at::Tensor x = at::zeros({2, 3, 24, 40}), t = at::zeros({2}), y = at::zeros({2}, at::kLong);
  CHECK_THROWS_WITH(plain.forward(at::zeros({2, 3, 40, 24}), t), Catch::Contains("[2, 3, 40, 24]") && Catch::Contains("3, 24, 40"));
  CHECK_THROWS_AS(plain.forward(x, at::zeros({3})), Error);
  CHECK_THROWS_WITH(plain.forward(x, t, y), Catch::Contains("without a label token"));
  CHECK_THROWS_WITH(labelled.forward(x, t), Catch::Contains("needs labels"));
  CHECK_THROWS_WITH(labelled.forward(x, t, at::full({2}, 4, at::kLong)), Catch::Contains("0 ... 3"));
  CHECK_THROWS_AS(labelled.forward(x, t, at::zeros({2})), Error);
  CHECK_THROWS_WITH(text.forward(x, t), Catch::Contains("needs a context"));
  CHECK_THROWS_WITH(text.forward(x, t, {}, at::zeros({2, 2, 5})), Catch::Contains("[2, 2, 5]") && Catch::Contains("[2, 2, 6]"));
  CHECK(text.forward(x, t, {}, at::zeros({2, 2, 6})).sizes() == x.sizes());
}

TEST_CASE("options that cannot be are refused") {
  UViTOptions o = small_options();
  o.patch_size = 16;
  CHECK_THROWS_WITH(UViT(o), Catch::Contains("patch_size 16") && Catch::Contains("24 x 40"));
  o = small_options();
  o.num_heads = 5;
  CHECK_THROWS_WITH(UViT(o), Catch::Contains("num_heads 5"));
  o = small_options();
  o.plan.kinds.pop_back();
  CHECK_THROWS_AS(UViT(o), Error);
  o = small_options();
  o.context_dim = 8;
  CHECK_THROWS_AS(UViT(o), Error);
}
