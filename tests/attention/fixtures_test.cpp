#include <torch/torch.h>

#include <algorithm>
#include <string>

#include "attention/operands.h"
#include "io/safetensors.h"
#include "support/fixtures.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// "cog_causal" -> {"cog", true}
std::pair<std::string, bool> split_operation(const std::string& operation) {
  const std::string suffix = "_causal";
  if (operation.size() > suffix.size() && operation.ends_with(suffix)) return {operation.substr(0, operation.size() - suffix.size()), true};
  return {operation, false};
}

/// dipole_t5 and dipole_bert are historic variants of dipole's second weights, u / sum(u): here as formulas, no kinds of ours.
bool is_historic(const std::string& kind) { return kind == "dipole_t5" || kind == "dipole_bert"; }

at::Tensor historic_dipole(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind, std::optional<double> scale,
                           bool /*causal*/, const AttentionExtras& extras) {
  const at::Tensor s = at::matmul(q, k.transpose(2, 3)) * scale.value(), first = s.softmax(-1);
  const at::Tensor u = kind == "dipole_t5" ? 1 / (first + 1e-9) : 1 / (s.exp() + 1e-6);
  const auto heads = [](const at::Tensor& w) { return w.view({1, -1, 1, 1}); };
  return heads(extras.w_plus) * at::matmul(first, v) + heads(extras.w_minus) * at::matmul(u / u.sum(-1, true), extras.v2);
}

Operands load_operands(const TensorFile& file, const std::string& kind) {
  const auto load = [&](const std::string& name) { return load_tensor(file, name, at::kDouble); };
  Operands operands;
  operands.q = load("q");
  operands.k = load("k");
  operands.v = load("v");
  if (kind == "diff") operands.extras = {.q2 = load("q2"), .k2 = load("k2"), .w_minus = load("lam")};
  if (kind.starts_with("dipole")) operands.extras = {.v2 = load("v2"), .w_plus = load("w_plus"), .w_minus = load("w_minus")};
  return operands;
}

/// The fixtures' name of our result: dipole's first value is v1 there, diff's weight lam.
std::string stored_name(const std::string& kind, const std::string& name) {
  if (kind.starts_with("dipole") && name == "dv") return "dv1";
  return kind == "diff" && name == "dw_minus" ? "dlam" : name;
}

double budget(at::ScalarType dtype, const at::Tensor& reference) {
  return dtype == at::kDouble ? 1e-9 * std::max(1.0, max_abs(reference)) : 5e-6 + 3e-5 * max_abs(reference);
}

/// Runs `call` on every operation of every fixture file for which `wanted` holds; returns how many there were.
template <class Wanted>
int check_fixtures(AttentionCall call, at::ScalarType dtype, Wanted wanted) {
  const nlohmann::json index = fixture_json("attention.json");
  int checked = 0;
  for (const char* list : {"cases", "edge_cases"}) {
    for (const nlohmann::json& entry : index.at(list)) {
      const TensorFile file = read_safetensors(fixtures() / (entry.at("name").get<std::string>() + ".safetensors"));
      for (const auto& [operation, unused] : entry.at("ops").items()) {
        const auto [kind, causal] = split_operation(operation);
        if (!wanted(kind)) continue;
        INFO(entry.at("name") << " " << operation << " " << c10::toString(dtype));
        const at::Tensor dout = load_tensor(file, "dout", at::kDouble);
        const Operands operands = load_operands(file, kind).leaves(dtype);
        for (const auto& [name, value] : run_attention(call, operands, kind, dout, entry.at("scale").get<double>(), causal)) {
          const at::Tensor reference = to_torch(file.at(operation + "." + stored_name(kind, name) + ".f64"));
          CHECK(value.scalar_type() == dtype);
          check_tensor(name, value, reference, budget(dtype, reference));
        }
        ++checked;
      }
    }
  }
  return checked;
}

bool is_current(const std::string& kind) { return !is_historic(kind); }

}  // namespace

TEST_CASE("plain ATen attention agrees with the official code, random and edge data, float32 and float64") {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) CHECK(check_fixtures(eager_attention, dtype, is_current) > 0);
}

TEST_CASE("the operator agrees with the official code, random and edge data: fused in float32, plain in float64") {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) CHECK(check_fixtures(attention, dtype, is_current) > 0);
}

TEST_CASE("the historic variants of dipole are what their formulas say") {
  CHECK(check_fixtures(historic_dipole, at::kDouble, is_historic) > 0);
}
