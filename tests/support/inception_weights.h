#pragma once
#include <cmath>
#include <cstdint>
#include <string>

#include "core/random.h"
#include "io/host_tensor.h"
#include "support/fixtures.h"

namespace uvit::test {

/// Value i of the stream of `name` in [-1, 1): README of the fixtures, section 6.
inline double formula_value(std::uint64_t key, std::uint64_t i) {
  std::uint64_t z = key + (i + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return 2 * (static_cast<double>(z >> 11) * 0x1p-53) - 1;
}

/// The state dict of FID's Inception with the weights that the fixtures were made with: every name and shape of fid.json, values by formula.
inline TensorFile inception_weights() {
  TensorFile file;
  const nlohmann::json json = fixture_json("fid.json");
  for (const nlohmann::json& entry : json.at("state_dict")) {
    const std::string name = entry.at("name");
    HostTensor tensor{DType::f32, entry.at("shape").get<std::vector<std::int64_t>>(), {}};
    if (name.ends_with("num_batches_tracked")) {
      tensor.dtype = DType::i64;
      tensor.data.resize(8);
      file.tensors.emplace_back(name, std::move(tensor));
      continue;
    }
    tensor.data.resize(static_cast<std::size_t>(tensor.numel()) * 4);
    const bool variance = name.ends_with("running_var"), matrix = name.ends_with("conv.weight") || name == "fc.weight";
    const double scale = matrix ? std::sqrt(6.0 / static_cast<double>(tensor.numel() / tensor.shape[0])) : 0.1, shift = name.ends_with("bn.weight") ? 1 : 0;
    const std::uint64_t key = hash_name(name);
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      const double v = formula_value(key, static_cast<std::uint64_t>(i));
      tensor.as<float>()[i] = static_cast<float>(variance ? 1 + 0.25 * (v + 1) : shift + scale * v);
    }
    file.tensors.emplace_back(name, std::move(tensor));
  }
  return file;
}

}  // namespace uvit::test
