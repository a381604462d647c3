#pragma once
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/uvit.h"
#include "support/fixtures.h"
#include "support/tensors.h"

namespace uvit::test {

/// The timestep frequencies of the machine that made the fixtures, read back from its embedding of this dim; ours where the fixtures have none.
/// A float32 exp may round a near-tie either way, and CPUs of two makers do: each frequency of ours is moved by at most one last bit, to the
/// neighbour whose cosines and sines are the stored ones. Without this the float64 references, which hold that machine's float32 table, are out
/// of reach on another maker's CPU.
inline at::Tensor fixture_frequencies(std::int64_t dim) {
  const at::Tensor ours = timestep_frequencies(dim);
  const TensorFile file = read_safetensors(fixtures() / "uvit_timestep_embedding.safetensors");
  const HostTensor* stored = file.find("emb_dim" + std::to_string(dim));
  if (!stored) return ours;
  const std::int64_t half = dim / 2;
  const at::Tensor t = to_torch(file.at("timesteps")), reference = to_torch(*stored).narrow(1, 0, 2 * half);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  at::Tensor best = ours.clone(), best_error;
  for (const float towards : {0.0F, -infinity, infinity}) {  // 0: unmoved, which wins a draw
    at::Tensor moved = ours.clone();
    float* value = moved.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < half && towards != 0; ++i) value[i] = std::nextafter(value[i], towards);
    const at::Tensor error = (timestep_embedding(t, moved, 2 * half) - reference).abs().sum(0).view({2, half}).sum(0);
    if (!best_error.defined()) best_error = error;
    best = at::where(error < best_error, moved, best);
    best_error = at::minimum(error, best_error);
  }
  return best;
}

/// Gives the network the frequencies of the machine that made the fixtures: for comparisons with its float64 references.
inline void use_fixture_frequencies(UViT& model) { model.set_timestep_frequencies(fixture_frequencies(model.options().embed_dim)); }

}  // namespace uvit::test
