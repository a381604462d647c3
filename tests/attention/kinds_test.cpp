#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "attention/operands.h"
#include "core/error.h"
#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;

namespace {

AttentionOptions options_of(const std::string& kind, const std::string& backend, std::int64_t heads = 4, std::int64_t width = 32) {
  AttentionOptions options;
  options.embed_dim = width;
  options.num_heads = heads;
  options.qkv_bias = true;
  options.block_index = 3;
  options.kind = kind;
  options.backend = backend;
  return options;
}

/// A module with values of its own in every parameter.
std::shared_ptr<Attention> random_module(const AttentionOptions& options, at::ScalarType dtype) {
  const auto module = make_attention(options);
  module->to(dtype);
  const torch::NoGradGuard no_grad;
  std::uint64_t seed = 100;
  for (auto& parameter : module->named_parameters()) parameter.value().copy_(seeded(parameter.value().sizes().vec(), seed++) * 0.3);
  return module;
}

/// The module's output from its parameters alone, spelled out with a loop over heads.
at::Tensor spelled_out(const std::string& kind, const AttentionOptions& options, const torch::OrderedDict<std::string, at::Tensor>& p,
                       const at::Tensor& x) {
  const auto find = [&](const char* name) { return p.contains(name) ? p[name] : at::Tensor(); };
  const std::int64_t dim = options.embed_dim, width = dim / options.num_heads;
  const at::Tensor qkv = at::linear(x, p["qkv.weight"], find("qkv.bias"));
  const auto part = [&](std::int64_t s, std::int64_t head, std::int64_t heads = 1) { return qkv.narrow(2, s * dim + head * width, heads * width); };
  std::vector<at::Tensor> outputs;
  if (kind == "differential") {
    const double init = 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(options.block_index));
    const at::Tensor lambda = at::exp(at::dot(p["lambda_q1"], p["lambda_k1"])) - at::exp(at::dot(p["lambda_q2"], p["lambda_k2"])) + init;
    for (std::int64_t pair = 0; pair < options.num_heads / 2; ++pair) {
      const auto weights = [&](std::int64_t head) {
        return at::softmax(at::matmul(part(0, head), part(1, head).transpose(1, 2)) / std::sqrt(static_cast<double>(width)), -1);
      };
      const at::Tensor o = at::matmul(weights(2 * pair) - lambda * weights(2 * pair + 1), part(2, 2 * pair, 2));
      outputs.push_back(o * (o.square().mean(-1, true) + 1e-5).rsqrt() * p["subln.weight"] * (1 - init));
    }
  } else {
    const at::Tensor v2 = p.contains("v2.weight") ? at::linear(x, p["v2.weight"]) : at::Tensor();
    for (std::int64_t head = 0; head < options.num_heads; ++head) {
      const auto one = [](const at::Tensor& t) { return t.unsqueeze(1); };
      AttentionExtras extras;
      if (v2.defined()) extras.v2 = one(v2.narrow(2, head * width, width));
      if (p.contains("w_plus")) extras.w_plus = p["w_plus"].narrow(0, head, 1);
      if (p.contains("w_minus")) extras.w_minus = p["w_minus"].narrow(0, head, 1);
      outputs.push_back(eager_attention(one(part(0, head)), one(part(1, head)), one(part(2, head)), kind, {}, false, extras).squeeze(1));
    }
  }
  return at::linear(at::cat(outputs, 2), p["proj.weight"], p["proj.bias"]);
}

std::set<std::string> names_of(const Attention& module) {
  std::set<std::string> names;
  for (const auto& parameter : module.named_parameters()) names.insert(parameter.key());
  return names;
}

}  // namespace

TEST_CASE("the table has every kind of the operator once, with a description") {
  std::set<kernels::Kind> ops;
  std::set<std::string> names;
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    CHECK(row.description.size() > 10);
    ops.insert(row.op);
    names.insert(row.name);
  }
  CHECK(ops.size() == kernels::kKindCount);
  CHECK(names.size() == ops.size());
}

TEST_CASE("every kind, both back ends: the module is what its parameters spell out, head by head") {
  for (const AttentionKind& row : attention_kinds()) {
    for (const std::string backend : {"fused", "eager"}) {
      for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
        INFO(row.name << " " << backend << " " << c10::toString(dtype));
        const AttentionOptions options = options_of(row.name, backend);
        const auto module = random_module(options, dtype), wide = random_module(options, at::kDouble);
        const at::Tensor x = seeded({2, 7, 32}, 1, dtype);
        const at::Tensor expected = spelled_out(row.name, options, wide->named_parameters(), x.to(at::kDouble));
        const at::Tensor out = module->forward(x);
        CHECK(out.scalar_type() == dtype);
        check_tensor("module", out, expected, dtype == at::kDouble ? 1e-12 : 2e-5 * std::max(1.0, max_abs(expected)));
        out.square().sum().backward();
        for (const auto& parameter : module->named_parameters()) {
          INFO(parameter.key());
          REQUIRE(parameter.value().grad().defined());
          CHECK(parameter.value().grad().abs().max().item<double>() > 0);
        }
      }
    }
  }
}

TEST_CASE("every kind: gradients of parameters and input agree between the back ends") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    std::vector<at::Tensor> gradients[2];
    for (const bool fused : {true, false}) {
      const auto module = random_module(options_of(row.name, fused ? "fused" : "eager"), at::kFloat);
      const at::Tensor x = seeded({2, 33, 32}, 1, at::kFloat).set_requires_grad(true);
      module->forward(x).square().mean().backward();
      gradients[fused].push_back(x.grad());
      for (const at::Tensor& parameter : module->parameters()) gradients[fused].push_back(parameter.grad());
    }
    for (std::size_t i = 0; i < gradients[0].size(); ++i) check_tensor("gradient", gradients[1][i], gradients[0][i], 2e-5 * max_abs(gradients[0][i]));
  }
}

TEST_CASE("state dicts: official names, and beside them only what the kind has of its own") {
  const std::set<std::string> official = {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"};
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    std::set<std::string> expected = official;
    if (row.name == "sda_weighted" || row.name == "dipole") expected.insert({"w_plus", "w_minus"});
    if (row.name == "dipole") expected.insert("v2.weight");
    if (row.name == "differential") {
      expected.erase("qkv.bias");
      expected.insert({"lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "subln.weight"});
    }
    const auto module = make_attention(options_of(row.name, "fused"));
    CHECK(names_of(*module) == expected);
    const auto parameters = module->named_parameters();
    if (parameters.contains("w_plus")) CHECK(parameters["w_plus"].sizes() == at::IntArrayRef({4}));
    if (parameters.contains("v2.weight")) CHECK(parameters["v2.weight"].sizes() == at::IntArrayRef({32, 32}));
    if (parameters.contains("lambda_q1")) CHECK(parameters["lambda_q1"].sizes() == at::IntArrayRef({8}));
    if (parameters.contains("subln.weight")) CHECK(parameters["subln.weight"].sizes() == at::IntArrayRef({16}));
  }
}

TEST_CASE("every kind runs with widths that the fused kernels do not take") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    const AttentionOptions options = options_of(row.name, "fused", 2, 20);
    const auto module = random_module(options, at::kFloat), wide = random_module(options, at::kDouble);
    const at::Tensor x = seeded({1, 5, 20}, 1, at::kFloat);
    const at::Tensor expected = spelled_out(row.name, options, wide->named_parameters(), x.to(at::kDouble));
    check_tensor("module", module->forward(x), expected, 2e-5 * std::max(1.0, max_abs(expected)));
  }
}

TEST_CASE("make_attention refuses heads that do not divide the width, odd heads to pair, an unknown kind and an unknown back end") {
  CHECK_THAT(error_of([] { make_attention(options_of("cog", "fused", 5)); }), Catch::Contains("32") && Catch::Contains("5"));
  CHECK_THAT(error_of([] { make_attention(options_of("differential", "fused", 3, 24)); }),
             Catch::Contains("num_heads = 3") && Catch::Contains("even"));
  CHECK_THAT(error_of([] { make_attention(options_of("softmx", "fused")); }), Catch::Contains("did you mean 'softmax'"));
  CHECK_THAT(error_of([] { make_attention(options_of("cog", "eagr")); }), Catch::Contains("did you mean 'eager'"));
}
