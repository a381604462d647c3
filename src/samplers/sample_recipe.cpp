#include "samplers/sample_recipe.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <vector>

#include "config/keys.h"
#include "samplers/sampler.h"

namespace uvit {
namespace {

/// The keys of [sample] that are not at their defaults.
std::vector<const ConfigKey*> changed_keys(const Config& config) {
  std::vector<const ConfigKey*> changed;
  const Config defaults;
  for (const ConfigKey& key : config_keys())
    if (key.section == "sample" && format_field(key, config) != format_field(key, defaults)) changed.push_back(&key);
  return changed;
}

}  // namespace

std::map<std::string, std::string> sample_recipe(const Config& config, std::int64_t nfe) {
  const SampleConfig& sample = config.sample;
  const SolverRow& solver = find_solver(sample.solver);
  std::map<std::string, std::string> recipe = {{"solver", sample.solver},
                                               {"nfe", std::to_string(nfe)},
                                               {"guidance_scale", fmt::format("{} (w = {:g})", sample.guidance_scale, sample.guidance_scale - 1)},
                                               {"precision", sample.precision},
                                               {"device", config.train.device},
                                               {"batch_size", std::to_string(sample.batch_size)}};
  if (solver.goes_by("num_steps")) recipe.insert({"num_steps", std::to_string(sample.num_steps)});
  for (const ConfigKey* key : changed_keys(config)) {
    const std::string name(key->name);
    if (name != "seed" && name != "grid" && name != "ema" && solver.goes_by(name)) recipe.insert({name, format_field(*key, config)});
  }
  return recipe;
}

void warn_of_settings_without_effect(const Config& config) {
  const SolverRow& solver = find_solver(config.sample.solver);
  for (const ConfigKey* key : changed_keys(config))
    if (!solver.goes_by(key->name)) spdlog::warn("{} = {} has no effect: {} does not go by it", key->full_name(), format_field(*key, config), solver.name);
}

}  // namespace uvit
