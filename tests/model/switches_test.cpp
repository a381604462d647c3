#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "attention/rope.h"
#include "core/error.h"
#include "diffusion/autocast.h"
#include "model/uvit.h"
#include "support/scratch.h"
#include "support/switch_reference.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

UViTOptions base_options(const std::string& kind = "softmax") {
  UViTOptions o;
  o.height = 12;
  o.width = 16;
  o.channels = 2;
  o.patch_size = 4;
  o.embed_dim = 32;
  o.depth = 2;
  o.num_heads = 4;
  o.label_rows = 3;
  ModelConfig plan;
  plan.depth = o.depth;
  plan.attention = {kind};
  plan.softmax_blocks = {};
  o.plan = make_plan(plan);
  return o;
}

struct Switch {
  std::string name;
  std::function<void(UViTOptions&)> set;
};

/// Each switch by itself, and all at once.
std::vector<Switch> switches() {
  std::vector<Switch> all = {{"qk_norm", [](UViTOptions& o) { o.qk_norm = true; }},
                             {"rope", [](UViTOptions& o) { o.rope = true; }},
                             {"swiglu", [](UViTOptions& o) { o.mlp = "swiglu"; }},
                             {"rms", [](UViTOptions& o) { o.norm = "rms"; }},
                             {"registers", [](UViTOptions& o) { o.register_tokens = 3; }},
                             {"adaln_zero", [](UViTOptions& o) { o.adaln_zero = true; }},
                             {"align", [](UViTOptions& o) { o.align_dim = 5, o.align_block = 1; }}};
  const std::vector<Switch> each = all;
  all.push_back({"all", [each](UViTOptions& o) {
                   for (const Switch& one : each) one.set(o);
                 }});
  all.push_back({"none", [](UViTOptions&) {}});
  return all;
}

at::Tensor seeded(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kFloat));
}

/// Values of its own in every parameter, so that no zero hides a path.
void randomise(UViT& model) {
  const torch::NoGradGuard no_grad;
  std::uint64_t seed = 100;
  for (auto& item : model.named_parameters()) {
    const bool is_norm = item.key().find("norm") != std::string::npos && item.key().ends_with(".weight");
    item.value().copy_(seeded(item.value().sizes().vec(), seed++) * (item.key().starts_with("projector") ? 0.05 : 0.2) + (is_norm ? 1.0 : 0.0));
  }
}

struct Pass {
  at::Tensor out, aligned;
  std::map<std::string, at::Tensor> gradients;
};

/// Output, projected patches, and the gradients of a loss of both.
template <class Forward>
Pass differentiate(const std::map<std::string, at::Tensor>& parameters, const Forward& forward) {
  Pass pass;
  pass.out = forward(&pass.aligned);
  at::Tensor loss = (pass.out * seeded(pass.out.sizes().vec(), 7).to(pass.out.scalar_type())).sum();
  if (pass.aligned.defined()) loss = loss + (pass.aligned * seeded(pass.aligned.sizes().vec(), 8).to(loss.scalar_type())).sum();
  loss.backward();
  for (const auto& [name, parameter] : parameters) pass.gradients[name] = parameter.grad();
  return pass;
}

std::map<std::string, at::Tensor> parameters_of(const UViT& model) {
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, parameter] : named_parameters(model)) result.emplace(name, parameter);
  return result;
}

}  // namespace

TEST_CASE("every switch, alone and with all others, is what its formula says: output and gradients in float64 and float32") {
  const at::Tensor x = seeded({2, 2, 12, 16}, 1), t = at::tensor({3.0F, 700.0F}), y = at::tensor({0, 2}, at::kLong);
  for (const std::string kind : {"softmax", "differential"}) {
    for (const Switch& on : switches()) {
      UViTOptions o = base_options(kind);
      on.set(o);
      UViT model(o), wide(o);
      randomise(model);
      randomise(wide);
      wide.to(at::kDouble);
      std::map<std::string, at::Tensor> plain;
      for (const auto& [name, parameter] : parameters_of(wide)) plain[name] = parameter.detach().clone().set_requires_grad(true);
      const SwitchReference reference(o, plain);
      const Pass expected = differentiate(plain, [&](at::Tensor* aligned) { return reference.forward(x.to(at::kDouble), t, y, aligned); });
      for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
        UViT& ours = dtype == at::kDouble ? wide : model;
        const double budget = dtype == at::kDouble ? 1e-10 : 2e-4;  // float32: the gradients of lambda are sums that cancel
        INFO(kind << ", " << on.name << ", " << c10::toString(dtype));
        const auto parameters = parameters_of(ours);
        const Pass pass = differentiate(parameters, [&](at::Tensor* aligned) { return ours.forward(x.to(dtype), t, y, {}, aligned); });
        check_tensor("out", pass.out, expected.out, budget * max_abs(expected.out));
        CHECK(pass.aligned.defined() == (o.align_dim > 0));
        if (pass.aligned.defined()) check_tensor("aligned", pass.aligned, expected.aligned, budget * max_abs(expected.aligned));
        for (const auto& [name, gradient] : expected.gradients) {
          INFO(name);
          REQUIRE(gradient.defined());
          REQUIRE(pass.gradients.at(name).defined());
          CHECK(max_abs(gradient) > 0);
          check_tensor(name, pass.gradients.at(name), gradient, budget * max_abs(gradient));
        }
      }
    }
  }
}

TEST_CASE("every switch works with every attention kind, and under autocast every parameter gets a gradient") {
  const at::Tensor x = seeded({2, 2, 12, 16}, 1), t = at::tensor({3.0F, 700.0F}), y = at::tensor({0, 2}, at::kLong);
  for (const AttentionKind& kind : attention_kinds()) {
    UViTOptions o = base_options(kind.name);
    switches()[switches().size() - 2].set(o);
    UViT model(o);
    randomise(model);
    INFO(kind.name);
    at::Tensor exact_aligned, aligned, out;
    const at::Tensor exact = model.forward(x, t, y, {}, &exact_aligned);
    {
      const AutocastGuard autocast("bf16", at::kCPU);
      out = model.forward(x, t, y, {}, &aligned);
    }
    CHECK(out.scalar_type() == at::kFloat);
    CHECK((out - exact).norm().item<double>() < 0.1 * exact.norm().item<double>());
    (out.square().mean() + aligned.to(at::kFloat).square().mean()).backward();
    for (const auto& [name, parameter] : named_parameters(model)) {
      INFO(name);
      REQUIRE(parameter.grad().defined());
      CHECK(parameter.grad().isfinite().all().item<bool>());
      CHECK(parameter.grad().abs().max().item<float>() > 0);
    }
  }
}

TEST_CASE("rope: scores hang on the difference of places, lengths stay, tokens before the patches are untouched") {
  const std::int64_t rows = 3, columns = 4, d = 8;
  AxialRope rope(rows, columns, d);
  const at::Tensor q = seeded({1, 1, 1, d}, 1).to(at::kDouble), k = seeded({1, 1, 1, d}, 2).to(at::kDouble);
  const auto everywhere = [&](const at::Tensor& x) { return rope.rotate(x.expand({1, 2 + rows * columns, 1, d})); };
  const at::Tensor qs = everywhere(q), ks = everywhere(k);
  CHECK(at::equal(qs.narrow(1, 0, 2), q.expand({1, 2, 1, d})));
  check_tensor("lengths", qs.norm(2, -1), q.norm(2, -1).expand({1, 2 + rows * columns, 1}), 1e-12);
  const at::Tensor scores = at::matmul(qs.select(2, 0)[0].narrow(0, 2, rows * columns), ks.select(2, 0)[0].narrow(0, 2, rows * columns).t());
  std::map<std::pair<std::int64_t, std::int64_t>, double> by_difference;
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    for (std::int64_t j = 0; j < rows * columns; ++j) {
      const double score = scores[i][j].item<double>();
      const auto [found, is_new] = by_difference.emplace(std::pair(i / columns - j / columns, i % columns - j % columns), score);
      CHECK(found->second == Approx(score).margin(1e-12));
    }
  }
  CHECK(by_difference.size() == 35);
  CHECK(std::abs(by_difference.at({0, 1}) - by_difference.at({1, 0})) > 1e-3);
}

TEST_CASE("adaln_zero begins as DiT does: the output is the last bias, whatever goes in, and the prediction learns first") {
  UViTOptions o = base_options();
  o.adaln_zero = true;
  for (const bool conv : {false, true}) {
    o.conv = conv;
    UViT model(o);
    model.initialise(3);
    at::Tensor out = model.forward(seeded({2, 2, 12, 16}, 1), at::tensor({3.0F, 700.0F}), at::tensor({0, 2}, at::kLong));
    const at::Tensor bias = conv ? parameters_of(model).at("final_layer.bias").detach().view({1, 2, 1, 1}) : at::zeros({1, 2, 1, 1});
    CHECK(at::equal(out.detach(), bias.expand_as(out)));
    (out - 1).square().mean().backward();
    const auto parameters = parameters_of(model);
    CHECK(max_abs(parameters.at("decoder_pred.weight").grad()) > 0);
    CHECK(max_abs(parameters.at("in_blocks.0.attn.qkv.weight").grad()) == 0);
    CHECK(max_abs(parameters.at("in_blocks.0.adaLN_modulation.1.weight")) == 0);
    CHECK(max_abs(parameters.at("label_emb.weight")) < 0.1);
    CHECK_FALSE(parameters.contains("norm.weight"));
    CHECK(parameters.at("pos_embed").size(1) == 12);
  }
}

TEST_CASE("the order of register tokens does not matter, their values do") {
  UViTOptions o = base_options();
  o.register_tokens = 3;
  UViT model(o);
  model.initialise(3);
  const torch::NoGradGuard no_grad;
  const at::Tensor x = seeded({2, 2, 12, 16}, 1), t = at::tensor({3.0F, 700.0F}), y = at::tensor({0, 2}, at::kLong);
  at::Tensor registers = parameters_of(model).at("register_tokens");
  CHECK(registers.std().item<double>() == Approx(0.02).epsilon(0.3));
  registers.mul_(50);
  const at::Tensor before = model.forward(x, t, y);
  registers.copy_(registers.flip(1).clone());
  check_tensor("turned round", model.forward(x, t, y), before, 1e-5);
  registers.neg_();
  CHECK((model.forward(x, t, y) - before).abs().max().item<double>() > 1e-4);
}

TEST_CASE("parameters and operations are counted for every switch") {
  for (const Switch& on : switches()) {
    INFO(on.name);
    UViTOptions o = base_options();
    o.context_dim = 6;
    o.context_tokens = 2;
    on.set(o);
    const UViT model(o);
    // A weight of rows x columns makes rows * columns products for every token that goes through it.
    const double patches = 12, extras = (o.adaln_zero ? 0 : 2) + 2, tokens = patches + extras + static_cast<double>(o.register_tokens);
    double products = 3 * 2 * tokens * tokens * 32;  // the two products of three blocks' attention
    std::int64_t count = 0;
    for (const auto& [name, parameter] : named_parameters(model)) {
      count += parameter.numel();
      const auto is_of = [&](const char* part) { return name.find(part) != std::string::npos; };
      double times = tokens;
      if (!name.ends_with(".weight") || is_of("norm") || is_of("label_emb") || is_of("projector")) times = 0;
      if (is_of("patch_embed")) times *= patches / tokens;
      if (is_of("context_embed")) times *= 2 / tokens;
      if (is_of("time_embed") || is_of("adaLN_modulation")) times /= tokens;
      if (is_of("final_layer")) times *= 12 * 16 / tokens;
      products += times * static_cast<double>(parameter.numel());
    }
    CHECK(model.flops_per_image() == Approx(2 * products).epsilon(1e-12));
    CHECK(model.num_parameters() == count);
  }
  UViTOptions o = base_options();
  const std::int64_t plain = UViT(o).num_parameters();
  const auto more = [&](const std::function<void(UViTOptions&)>& set) {
    UViTOptions with = o;
    set(with);
    return UViT(with).num_parameters() - plain;
  };
  const std::int64_t c = 32, hidden = 128, width = 88;  // 2/3 of 128 is 85, and 88 the next multiple of 8
  CHECK(more([](UViTOptions& s) { s.qk_norm = true; }) == 3 * 2 * 8);
  CHECK(more([](UViTOptions& s) { s.rope = true; }) == 0);
  CHECK(more([](UViTOptions& s) { s.mlp = "swiglu"; }) == 3 * ((2 * width * (c + 1) + c * (width + 1)) - (hidden * (c + 1) + c * (hidden + 1))));
  CHECK(more([](UViTOptions& s) { s.norm = "rms"; }) == -7 * c);
  CHECK(more([](UViTOptions& s) { s.register_tokens = 3; }) == 3 * c);
  CHECK(more([](UViTOptions& s) { s.adaln_zero = true; }) ==
        (256 * c + c) + (c * c + c) + 3 * 6 * (c * c + c) + 2 * (c * c + c) - 7 * 2 * c - 2 * c);  // time MLP, modulations; no norms, no 2 positions
  CHECK(more([](UViTOptions& s) { s.align_dim = 5; }) == 2048 * (c + 1) + 2048 * 2049 + 5 * 2049);
}

TEST_CASE("a switch leaves the initial values of what it does not change") {
  UViT plain(base_options());
  plain.initialise(11);
  for (const Switch& on : switches()) {
    UViTOptions o = base_options();
    on.set(o);
    UViT model(o);
    model.initialise(11);
    const auto values = parameters_of(model);
    for (const auto& [name, value] : parameters_of(plain)) {
      INFO(on.name << " " << name);
      const bool of_dit = o.adaln_zero && (name == "label_emb.weight" || name.starts_with("decoder_pred"));
      if (values.contains(name) && values.at(name).sizes() == value.sizes() && !of_dit) CHECK(at::equal(values.at(name), value));
    }
    for (const auto& [name, value] : values)
      if (name.ends_with("q_norm.weight") || name.ends_with("k_norm.weight")) CHECK(value.eq(1).all().item<bool>());
  }
}

TEST_CASE("position embeddings are interpolated as bicubic interpolation says, those of other tokens copied") {
  const std::int64_t rows = 4, columns = 5, new_rows = 7, new_columns = 3;
  const at::Tensor source = seeded({1, 2 + rows * columns, 6}, 1).to(at::kDouble);
  const at::Tensor result = interpolate_pos_embed(source, rows, columns, new_rows, new_columns);
  REQUIRE(result.sizes() == at::IntArrayRef({1, 2 + new_rows * new_columns, 6}));
  CHECK(at::equal(result.narrow(1, 0, 2), source.narrow(1, 0, 2)));
  const auto kernel = [](double s) {  // Keys, 1981, with a = -0.75
    s = std::abs(s);
    if (s <= 1) return (1.25 * s - 2.25) * s * s + 1;
    return s < 2 ? ((-0.75 * s + 3.75) * s - 6) * s + 3 : 0.0;
  };
  const auto place = [](std::int64_t i, std::int64_t from, std::int64_t to) {
    return (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
  };
  at::Tensor expected = at::zeros({new_rows * new_columns, 6}, at::kDouble);
  for (std::int64_t i = 0; i < new_rows * new_columns; ++i) {
    const double y = place(i / new_columns, rows, new_rows), x = place(i % new_columns, columns, new_columns);
    for (std::int64_t r = -4; r < rows + 4; ++r) {
      for (std::int64_t c = -4; c < columns + 4; ++c) {
        const double weight = kernel(y - static_cast<double>(r)) * kernel(x - static_cast<double>(c));
        const std::int64_t row = std::clamp<std::int64_t>(r, 0, rows - 1), column = std::clamp<std::int64_t>(c, 0, columns - 1);
        expected[i] += weight * source[0][2 + row * columns + column];
      }
    }
  }
  check_tensor("patches", result[0].narrow(0, 2, new_rows * new_columns), expected, 1e-12);
  check_tensor("the same grid", interpolate_pos_embed(source, rows, columns, rows, columns), source, 1e-14);
}

TEST_CASE("switches that cannot be are refused with the reason") {
  const auto refusal = [](const std::function<void(UViTOptions&)>& set) {
    UViTOptions o = base_options();
    set(o);
    return error_of([&] { UViT model(o); });
  };
  CHECK_THAT(refusal([](UViTOptions& o) { o.rope = true, o.num_heads = 16; }), Catch::Contains("model.rope") && Catch::Contains("= 2 "));
  CHECK_THAT(refusal([](UViTOptions& o) { o.adaln_zero = o.mlp_time_embed = true; }),
             Catch::Contains("adaln_zero") && Catch::Contains("mlp_time_embed"));
  CHECK_THAT(refusal([](UViTOptions& o) { o.align_dim = 4, o.align_block = 3; }), Catch::Contains("align_block = 3") && Catch::Contains("0 ... 2"));
  CHECK_THAT(refusal([](UViTOptions& o) { o.mlp = "swigl"; }), Catch::Contains("'swiglu'"));
  CHECK_THAT(refusal([](UViTOptions& o) { o.norm = "rsm"; }), Catch::Contains("rms"));
}
