#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "io/host_tensor.h"
#include "model/autoencoder_kl.h"

namespace uvit {

/// Names and shapes as the official autoencoder_kl.pth has them, from a file with those names, with the prefix first_stage_model., or with the names of
/// diffusers' AutoencoderKL (attention called query, key, value, proj_attn or to_q, to_k, to_v, to_out.0). Throws Error for anything else.
TensorFile to_official_autoencoder(TensorFile file);

/// The options that official names and shapes imply; scale_factor is left as it is. Throws Error where they imply none.
AutoencoderOptions infer_autoencoder_options(const TensorFile& file);

/// Loads .safetensors, .pth, or a folder with diffusers' diffusion_pytorch_model.safetensors and config.json.
/// @param scale_factor  over what the file says: its metadata "scale_factor", or "scaling_factor" in the config.json beside it, else 0.18215
/// Throws Error naming the file.
std::shared_ptr<AutoencoderKL> load_autoencoder(const std::filesystem::path& path, std::optional<double> scale_factor = std::nullopt);

/// Decodes latents [B, c, h, w] on `device`, a few rows at a time so that memory stays bounded; the chunks are fixed, so the image in a row is bit-equal
/// whatever the others are. Throws Error where no autoencoder is named.
std::function<at::Tensor(const at::Tensor&)> make_latent_decoder(const std::filesystem::path& autoencoder, double scale_factor, at::Device device);

/// Writes weights (official names) and scale factor as .safetensors.
void save_autoencoder(const std::filesystem::path& path, const AutoencoderKL& autoencoder);

}  // namespace uvit
