#include <torch/torch.h>

#include <fmt/format.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/step_files.h"
#include "core/error.h"
#include "core/hash.h"
#include "io/pth.h"
#include "io/safetensors.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

std::shared_ptr<UViT> make_model(const Config& config, const TensorFile& weights, const fs::path& file) {
  auto model = std::make_shared<UViT>(make_uvit_options(config));
  load_parameters(*model, weights, file.string());
  model->eval();
  return model;
}

LoadedModel load_from_step(const fs::path& step_folder, bool ema) {
  LoadedModel loaded;
  CheckpointState state = load_state(step_folder);
  loaded.weights = ema ? fmt::format("ema_{}", ema_profile(state.config.train.ema_decay.front())) : "model";
  loaded.file = step_folder / (loaded.weights + ".safetensors");
  loaded.model = make_model(state.config, read_verified(step_folder, loaded.file.filename().string()), loaded.file);
  loaded.config = std::move(state.config);
  loaded.class_names = std::move(state.class_names);
  loaded.step = state.step;
  return loaded;
}

LoadedModel load_from_file(const fs::path& file, const std::optional<Config>& config) {
  LoadedModel loaded;
  loaded.file = file;
  loaded.weights = file.filename().string();
  if (config) {
    loaded.config = *config;
  } else if (fs::is_regular_file(file.parent_path() / "state.json")) {  // one file of a step folder: its neighbour says what it is
    CheckpointState state = load_state(file.parent_path());
    loaded.config = std::move(state.config);
    loaded.class_names = std::move(state.class_names);
    loaded.step = state.step;
  } else {
    throw Error(fmt::format("{} holds weights alone, which do not say their heads or their diffusion: give its configuration too", file.string()));
  }
  const bool pickled = file.extension() == ".pth" || file.extension() == ".pt";
  if (!pickled && file.extension() != ".safetensors")
    throw Error(fmt::format("{} is no checkpoint: a run folder, a step folder, a .safetensors or a .pth file will do", file.string()));
  loaded.model = make_model(loaded.config, pickled ? read_pth_state_dict(file) : read_safetensors(file), file);
  return loaded;
}

}  // namespace

LoadedModel load_model(const fs::path& path, bool ema, const std::optional<Config>& config) {
  if (!fs::exists(path)) throw Error(fmt::format("no such checkpoint: {}", path.string()));
  LoadedModel loaded;
  if (fs::is_regular_file(path)) {
    loaded = load_from_file(path, config);
  } else if (const fs::path official = path / (ema ? "nnet_ema.pth" : "nnet.pth"); fs::is_regular_file(official)) {
    loaded = load_from_file(official, config);
  } else {
    const fs::path step_folder = find_step_folder(path);
    if (config) throw Error(fmt::format("{} has its own configuration: leave out the one given", path.string()));
    loaded = load_from_step(step_folder, ema);
  }
  loaded.weights_hash = sha256_of_file(loaded.file);
  return loaded;
}

}  // namespace uvit
