#include <torch/torch.h>

#include "attention/eager.h"

#include <ATen/autocast_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "core/error.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// "cog_causal" -> {"cog", true}
std::pair<std::string, bool> split_operation(const std::string& operation) {
  const std::string suffix = "_causal";
  if (operation.size() > suffix.size() && operation.ends_with(suffix)) return {operation.substr(0, operation.size() - suffix.size()), true};
  return {operation, false};
}

bool is_kind(const std::string& name) {
  const auto kinds = attention_kinds();
  return std::any_of(kinds.begin(), kinds.end(), [&](const AttentionKind& kind) { return kind.name == name; });
}

double attention_budget(at::ScalarType dtype, const at::Tensor& reference) {
  return dtype == at::kDouble ? 1e-9 * std::max(1.0, max_abs(reference)) : 5e-6 + 3e-5 * max_abs(reference);
}

/// Output and gradients of one operation of one fixture file, in this dtype, against the float64 reference.
void check_operation(const TensorFile& file, const std::string& operation, double scale, at::ScalarType dtype) {
  const auto [kind, causal] = split_operation(operation);
  const at::Tensor q = load_tensor(file, "q", dtype, true), k = load_tensor(file, "k", dtype, true), v = load_tensor(file, "v", dtype, true);
  const at::Tensor out = eager_attention(q, k, v, kind, scale, causal);
  CHECK(out.scalar_type() == dtype);
  out.backward(load_tensor(file, "dout", dtype));
  const std::map<std::string, at::Tensor> results = {{"out", out}, {"dq", q.grad()}, {"dk", k.grad()}, {"dv", v.grad()}};
  for (const auto& [name, value] : results) {
    const at::Tensor reference = to_torch(file.at(operation + "." + name + ".f64"));
    check_tensor(operation + "." + name + " " + c10::toString(dtype), value, reference, attention_budget(dtype, reference));
  }
}

at::Tensor seeded(std::vector<std::int64_t> shape, std::uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

}  // namespace

TEST_CASE("plain ATen attention agrees with the official code, random and edge data, float32 and float64") {
  const nlohmann::json index = fixture_json("attention.json");
  std::size_t checked = 0;
  for (const char* list : {"cases", "edge_cases"}) {
    for (const nlohmann::json& entry : index.at(list)) {
      const std::string name = entry.at("name");
      INFO(name);
      const TensorFile file = read_safetensors(fixtures() / (name + ".safetensors"));
      for (const auto& [operation, unused] : entry.at("ops").items()) {
        if (!is_kind(split_operation(operation).first)) continue;
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) check_operation(file, operation, entry.at("scale"), dtype);
        ++checked;
      }
    }
  }
  CHECK(checked > 0);
}

TEST_CASE("every kind: gradients agree with finite differences, away from scores of 0") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    const at::Tensor dout = seeded({1, 2, 4, 8}, 4);
    std::vector<at::Tensor> inputs = {seeded({1, 2, 4, 8}, 1), seeded({1, 2, 5, 8}, 2), seeded({1, 2, 5, 8}, 3)};
    const auto loss = [&] { return (eager_attention(inputs[0], inputs[1], inputs[2], row.name) * dout).sum(); };
    REQUIRE(at::matmul(inputs[0], inputs[1].transpose(2, 3)).abs().min().item<double>() > 1e-3);
    for (at::Tensor& input : inputs) input.set_requires_grad(true);
    loss().backward();
    const torch::NoGradGuard no_grad;
    for (at::Tensor& input : inputs) {
      at::Tensor numeric = at::zeros_like(input), flat = input.view(-1);
      for (std::int64_t i = 0; i < flat.numel(); ++i) {
        const double value = flat[i].item<double>(), step = 1e-6;
        flat[i] = value + step;
        const double above = loss().item<double>();
        flat[i] = value - step;
        numeric.view(-1)[i] = (above - loss().item<double>()) / (2 * step);
        flat[i] = value;
      }
      check_tensor("gradient", input.grad(), numeric, 1e-8);
    }
  }
}

TEST_CASE("every kind: causal with more keys than queries, and with rows that see no key") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    const at::Tensor q = seeded({2, 1, 5, 8}, 1).set_requires_grad(true), k = seeded({2, 1, 3, 8}, 2), v = seeded({2, 1, 3, 4}, 3);
    const at::Tensor few = eager_attention(q, k, v, row.name, std::nullopt, true);
    CHECK(few.sizes() == at::IntArrayRef({2, 1, 5, 4}));
    CHECK(few.narrow(2, 0, 2).eq(0).all().item<bool>());
    few.sum().backward();
    CHECK(q.grad().narrow(2, 0, 2).eq(0).all().item<bool>());
    // Query i sees the keys up to i + Lk - L: each row is that row alone against the keys it sees.
    const at::Tensor many_k = seeded({2, 1, 7, 8}, 4), many_v = seeded({2, 1, 7, 4}, 5);
    const at::Tensor many = eager_attention(q, many_k, many_v, row.name, std::nullopt, true);
    for (std::int64_t i = 0; i < 5; ++i) {
      const std::int64_t visible = i + 7 - 5 + 1;
      const at::Tensor alone = eager_attention(q.narrow(2, i, 1), many_k.narrow(2, 0, visible), many_v.narrow(2, 0, visible), row.name);
      check_tensor("row", many.narrow(2, i, 1), alone, 1e-14);
    }
  }
}

TEST_CASE("cog: a score of 0 adds nothing but still counts in the denominator") {
  const at::Tensor q = at::tensor({1.0}).view({1, 1, 1, 1}), k = at::tensor({0.0, -2.0}).view({1, 1, 2, 1}), v = at::tensor({5.0, 1.0}).view({1, 1, 2, 1});
  const double expected = -std::exp(2.0) / (1 + std::exp(2.0));
  CHECK(eager_attention(q, k, v, "cog", 1.0).item<double>() == Approx(expected).epsilon(1e-6));
}

TEST_CASE("every kind: reduced precision computes in float32 and rounds once, under autocast too") {
  for (const AttentionKind& row : attention_kinds()) {
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      INFO(row.name << " " << c10::toString(dtype));
      const at::Tensor q = seeded({2, 3, 31, 16}, 1, dtype), k = seeded({2, 3, 31, 16}, 2, dtype), v = seeded({2, 3, 31, 16}, 3, dtype);
      const at::Tensor reference = eager_attention(q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble), row.name);
      at::autocast::set_autocast_enabled(at::kCPU, true);
      const at::Tensor cast = eager_attention(q, k, v, row.name);
      at::autocast::set_autocast_enabled(at::kCPU, false);
      const double half_ulp = dtype == at::kBFloat16 ? 1.0 / 256 : 1.0 / 2048;
      CHECK(cast.scalar_type() == dtype);
      check_tensor("out", cast, reference, half_ulp * max_abs(reference) + 1e-5);
    }
  }
}

TEST_CASE("attention refuses an unknown kind with the nearest name, and tensors that do not fit") {
  const at::Tensor x = at::zeros({1, 1, 2, 8});
  CHECK_THROWS_WITH(eager_attention(x, x, x, "cogg"), Catch::Contains("'cogg'") && Catch::Contains("did you mean 'cog'"));
  CHECK_THROWS_WITH(eager_attention(x, at::zeros({1, 1, 2, 4}), x, "cog"), Catch::Contains("[1, 1, 2, 4]"));
  CHECK_THROWS_AS(eager_attention(x, x, x.to(at::kDouble), "softmax"), Error);
  CHECK_THROWS_AS(eager_attention(x[0], x[0], x[0], "softmax"), Error);
}

TEST_CASE("every kind: the module is proj(attend(qkv)) with official parameter names") {
  for (const AttentionKind& row : attention_kinds()) {
    INFO(row.name);
    AttentionOptions options;
    options.embed_dim = 24;
    options.num_heads = 3;
    options.qkv_bias = true;
    options.kind = row.name;
    const auto module = make_attention(options);
    module->to(at::kDouble);
    const auto parameters = module->named_parameters();
    const at::Tensor x = seeded({2, 7, 24}, 1);
    const at::Tensor qkv = at::linear(x, parameters["qkv.weight"], parameters["qkv.bias"]);
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : qkv.chunk(3, -1)) parts.push_back(part.view({2, 7, 3, 8}).transpose(1, 2));
    const at::Tensor heads = eager_attention(parts[0], parts[1], parts[2], row.name).transpose(1, 2).reshape({2, 7, 24});
    check_tensor("module", module->forward(x), at::linear(heads, parameters["proj.weight"], parameters["proj.bias"]), 1e-14);
  }
}

TEST_CASE("make_attention refuses heads that do not divide the width, an unknown kind and an unknown back end") {
  AttentionOptions options;
  options.embed_dim = 24;
  options.num_heads = 5;
  options.kind = "cog";
  CHECK_THROWS_WITH(make_attention(options), Catch::Contains("24") && Catch::Contains("5"));
  options.num_heads = 4;
  options.kind = "softmx";
  CHECK_THROWS_WITH(make_attention(options), Catch::Contains("did you mean 'softmax'"));
  options.kind = "softmax";
  options.backend = "eagr";
  CHECK_THROWS_WITH(make_attention(options), Catch::Contains("did you mean 'eager'"));
}
