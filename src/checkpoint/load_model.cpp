#include <torch/torch.h>

#include <fmt/format.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/stored_weights.h"
#include "core/error.h"
#include "core/hash.h"

namespace uvit {
namespace fs = std::filesystem;

LoadedModel load_model(const fs::path& path, bool ema, const std::optional<Config>& config) {
  const StoredWeights stored = read_weights(path, ema);
  if (config && stored.state && fs::is_directory(path))
    throw Error(fmt::format("{} has its own configuration: leave out the one given", path.string()));
  if (!config && !stored.state)
    throw Error(fmt::format("{} holds weights alone, which do not say their heads or their diffusion: give its configuration too", stored.file.string()));
  LoadedModel loaded;
  loaded.file = stored.file;
  loaded.weights = stored.name;
  if (config) {
    loaded.config = *config;
  } else {
    loaded.config = stored.state->config;
    loaded.class_names = stored.state->class_names;
    loaded.step = stored.state->step;
  }
  loaded.model = std::make_shared<UViT>(make_uvit_options(loaded.config));
  load_parameters(*loaded.model, stored.tensors, stored.file.string());
  loaded.model->eval();
  loaded.weights_hash = sha256_of_file(stored.file);
  return loaded;
}

}  // namespace uvit
