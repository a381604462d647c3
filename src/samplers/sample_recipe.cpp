#include "samplers/sample_recipe.h"

#include <fmt/format.h>

#include "config/keys.h"

namespace uvit {

std::map<std::string, std::string> sample_recipe(const Config& config, std::int64_t nfe) {
  const SampleConfig& sample = config.sample;
  std::map<std::string, std::string> recipe = {{"solver", sample.solver},
                                               {"num_steps", std::to_string(sample.num_steps)},
                                               {"nfe", std::to_string(nfe)},
                                               {"guidance_scale", fmt::format("{} (w = {:g})", sample.guidance_scale, sample.guidance_scale - 1)},
                                               {"precision", sample.precision},
                                               {"device", config.train.device},
                                               {"batch_size", std::to_string(sample.batch_size)}};
  const Config defaults;
  for (const ConfigKey& key : config_keys()) {
    const std::string name(key.name), value = format_field(key, config);
    if (key.section != "sample" || name == "seed" || name == "grid" || name == "ema" || recipe.count(name) > 0) continue;
    if (value != format_field(key, defaults)) recipe.insert({name, value});
  }
  return recipe;
}

}  // namespace uvit
