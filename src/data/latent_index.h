#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace uvit {

/// latents.json of one split of a latent dataset: DIR/train/latents.json, DIR/test/latents.json. The latents lie beside it in shards of shard_size images,
/// latents-00000.safetensors: moments [n, 2 channels, height, width] float32, moments_flipped of the mirrored images likewise where `flips`, labels [n] int64.
struct LatentIndex {
  std::int64_t count = 0, shard_size = 0;
  std::int64_t channels = 0, height = 0, width = 0;  ///< of a latent; moments have twice the channels: mean and log of the variance
  double scale_factor = 0;
  bool flips = false;
  std::string autoencoder;  ///< SHA-256 of the autoencoder's file
  std::string source;       ///< what was encoded, for people
  std::int64_t num_classes = 0;
  std::vector<std::string> class_names;
  std::vector<double> mean, std;  ///< of scaled draws of the posterior, a channel each: E[z] and sqrt(E[(z - E[z])^2]); empty until all is encoded
};

/// Throws Error naming the file where it is missing, damaged, or of another format.
LatentIndex read_latent_index(const std::filesystem::path& split_folder);
void write_latent_index(const std::filesystem::path& split_folder, const LatentIndex& index);

/// captions.json of a split: shards captions-00000.safetensors hold context [n, tokens, dim] float32 and image [n] int64, the image each belongs to;
/// empty_context.safetensors holds context [tokens, dim] of the empty text.
struct CaptionIndex {
  std::int64_t count = 0, shard_size = 0, tokens = 0, dim = 0;
  std::string text_encoder;  ///< SHA-256 of the text encoder's file
};

/// Nothing where the split has no captions.json.
std::optional<CaptionIndex> read_caption_index(const std::filesystem::path& split_folder);
void write_caption_index(const std::filesystem::path& split_folder, const CaptionIndex& index);

/// "latents-00003.safetensors" in the split's folder.
std::filesystem::path shard_path(const std::filesystem::path& split_folder, const std::string& kind, std::int64_t shard);

/// DIR/train or DIR/test.
std::filesystem::path split_folder(const std::filesystem::path& dir, bool train);

}  // namespace uvit
