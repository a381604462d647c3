#pragma once
#include <filesystem>
#include <string>

#include "config/config.h"
#include "model/autoencoder_kl.h"

namespace uvit {

struct AutoencoderTraining {
  DataConfig data;
  AutoencoderOptions model;       ///< scale_factor is set by the training
  OptimizerConfig optimizer;
  double kl_weight = 1e-4;
  std::int64_t steps = 1000, batch_size = 32;
  std::uint64_t seed = 0;
  std::string precision = "fp32", device = "cpu";
  std::filesystem::path out;      ///< .safetensors to write; folders that are missing are made
};

struct AutoencoderResult {
  double loss = 0;                ///< of the last 100 steps
  double psnr = 0;                ///< of the test images' mean latents decoded, dB for values in [-1, 1]
  double kl = 0;                  ///< nats a latent value, of the test images
  double scale_factor = 0;        ///< 1 / standard deviation of the test images' draws
  bool interrupted = false;       ///< stopped by a signal: saved with what was learnt until then
};

/// Trains a KL autoencoder: mean |x - decode(z)| + mean (x - decode(z))^2 + kl_weight * KL(posterior || N(0, 1)) a latent value, z one draw of the
/// posterior. (The perceptual and adversarial terms of arXiv:2112.10752 need a pretrained network and are left out.) Data order, initial values and
/// draws are functions of the seed. Writes the weights with the scale factor. Throws Error when the loss is not finite, or `out` cannot be.
AutoencoderResult train_autoencoder(const AutoencoderTraining& training);

}  // namespace uvit
