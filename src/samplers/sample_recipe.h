#pragma once
#include <map>
#include <string>

#include "config/config.h"

namespace uvit {

/// What a recipe says of how images were drawn: solver, num_steps, nfe, guidance_scale, precision, device, batch_size, and every other [sample] key
/// that is not at its default, but none that the solver does not go by. Seeds, the grid and the choice of weights are said elsewhere.
std::map<std::string, std::string> sample_recipe(const Config& config, std::int64_t nfe);

/// Warns of every [sample] key that is not at its default and that the solver does not go by, such as eta with edm_heun.
void warn_of_settings_without_effect(const Config& config);

}  // namespace uvit
