#include "train/check_run.h"

#include <fmt/format.h>

#include <filesystem>

#include "core/error.h"
#include "samplers/sample_recipe.h"
#include "samplers/sampler.h"

namespace uvit {
namespace fs = std::filesystem;

void check_trainable(const Config& config) {
  validate(config);
  const bool draws = config.train.sample_every > 0 || config.eval.every_steps > 0;
  check_solver(config);  // whether it draws or not: the checkpoints carry these settings on
  warn_of_settings_without_effect(config);
  const bool conditional = config.data.num_classes > 0 || config.model.context_dim > 0;
  if (draws && config.sample.guidance_scale != 1.0 && (!conditional || config.diffusion.label_dropout == 0))
    throw Error("sample.guidance_scale is not 1, but training is without label dropout: set diffusion.label_dropout, or sample.guidance_scale = 1");
}

void check_data(const Config& config, const Dataset& dataset) {
  const ModelConfig& model = config.model;
  if (model.context_dim > 0 && (dataset.context_tokens() != model.context_tokens || dataset.context_dim() != model.context_dim))
    throw Error(dataset.context_tokens() == 0
                    ? fmt::format("model.context_dim = {}, but {} has no captions: add them with `uvit encode-text`, or set it to 0", model.context_dim,
                                  config.data.path)
                    : fmt::format("the captions of {} are {} tokens of width {}: set model.context_tokens and model.context_dim to that", config.data.path,
                                  dataset.context_tokens(), dataset.context_dim()));
  if (!dataset.latent() || (config.train.sample_every == 0 && config.eval.every_steps == 0)) return;
  if (config.data.autoencoder.empty())
    throw Error("sample grids and scores of latents need data.autoencoder: name it, or set train.sample_every = 0 and eval.every_steps = 0");
  if (!fs::exists(config.data.autoencoder)) throw Error(fmt::format("data.autoencoder = \"{}\": there is no such file", config.data.autoencoder));
}

}  // namespace uvit
