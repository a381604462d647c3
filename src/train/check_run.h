#pragma once
#include "config/config.h"
#include "data/dataset.h"

namespace uvit {

/// Throws Error where the configuration asks for what training cannot do; warns of settings without effect.
void check_trainable(const Config& config);

/// Throws Error where the dataset lacks what the model needs, or where there is nothing to make pictures of its latents with.
void check_data(const Config& config, const Dataset& dataset);

}  // namespace uvit
