#pragma once
#include <torch/nn/module.h>

#include <cstdint>

namespace uvit {

/// Initial values of every layer below `root`, each drawn from (seed, name of the parameter): Linear N(0, 0.02) with zero bias, convolutions as torch's
/// default, embeddings N(0, 1), norms 1 and 0. Parameters that lie in `root` itself are left alone.
void initialise_modules(torch::nn::Module& root, std::uint64_t seed);

}  // namespace uvit
