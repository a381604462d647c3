#pragma once
#include <optional>

#include "io/safetensors.h"
#include "tests/kernels/attention_case.h"
#include "tests/support/fixtures.h"

namespace uvit::test {

/// An operation of the fixtures: a kind, whether it is causal, and the names that its results have there.
struct Operation {
  Kind kind;
  bool causal;
};

/// Empty for operations that are no kinds (historic variants of dipole, which the tests of src/attention check).
inline std::optional<Operation> operation(std::string name) {
  const std::string suffix = "_causal";
  const bool causal = name.ends_with(suffix);
  if (causal) name.resize(name.size() - suffix.size());
  for (int k = 0; k < kernels::kKindCount; ++k)
    if (name == kernels::kind_name(static_cast<Kind>(k))) return Operation{static_cast<Kind>(k), causal};
  return std::nullopt;
}

inline std::string fixture_name(Kind kind, const std::string& ours) {
  if (ours == "o") return "out";
  if (kind == Kind::dipole && ours == "dv") return "dv1";
  if (kind == Kind::diff && ours == "dw_minus") return "dlam";
  return ours;
}

inline Reference read_problem(const TensorFile& file, Operation op) {
  Reference r;
  r.kind = op.kind, r.causal = op.causal;
  auto values = [&](const char* name) { return file.at(name).to_double(); };
  const auto &q = file.at("q").shape, &v = file.at("v").shape;
  r.B = q[0], r.H = q[1], r.L = q[2], r.D = q[3], r.Lk = v[2], r.Dv = v[3];
  r.scale = 1 / std::sqrt(static_cast<double>(r.D));
  r.q = values("q"), r.k = values("k"), r.v = values("v"), r.dout = values("dout");
  if (kernels::has_second_scores(op.kind)) r.q2 = values("q2"), r.k2 = values("k2");
  if (kernels::has_second_value(op.kind)) r.v2 = values("v2");
  if (kernels::has_w_plus(op.kind)) r.w_plus = values("w_plus");
  if (kernels::has_w_minus(op.kind)) r.w_minus = values(op.kind == Kind::diff ? "lam" : "w_minus");
  return r;
}

/// The operations in a file: the part of the names before ".out.f64".
inline std::vector<std::string> operations_in(const TensorFile& file) {
  const std::string ending = ".out.f64";
  std::vector<std::string> names;
  for (const auto& [name, tensor] : file.tensors)
    if (name.ends_with(ending)) names.push_back(name.substr(0, name.size() - ending.size()));
  return names;
}

/// The results of an operation against the float64 ones of the file: |error| <= absolute + relative * max |expected|.
inline void check_results(const std::string& what, const TensorFile& file, const std::string& name, Reference& got, double absolute, double relative,
                          bool relative_to_one = false) {
  for (const auto& [ours, values] : results_of(got)) {
    const std::vector<double> expected = file.at(name + "." + fixture_name(got.kind, ours) + ".f64").to_double();
    const double largest = relative_to_one ? std::max(1.0, max_abs(expected)) : max_abs(expected);
    check_close(what + " " + name + " " + ours, *values, expected, absolute + relative * largest);
  }
}

/// check(where, file, name of the operation, problem) for each operation of the fixtures that is one of the kinds.
template <class Check>
void for_each_fixture(Check check) {
  const nlohmann::json index = fixture_json("attention.json");
  int checked = 0;
  for (const char* list : {"cases", "edge_cases"})
    for (const nlohmann::json& entry : index.at(list)) {
      const std::string where = entry.at("name");
      const TensorFile file = read_safetensors(fixtures() / (where + ".safetensors"));
      for (const std::string& name : operations_in(file))
        if (const std::optional<Operation> known = operation(name)) {
          check(where, file, name, read_problem(file, *known));
          ++checked;
        }
    }
  CHECK(checked > 0);
}

}  // namespace uvit::test
