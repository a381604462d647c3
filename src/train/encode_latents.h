#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "config/config.h"
#include "data/dataset.h"
#include "data/latent_index.h"

namespace uvit {

struct EncodeRequest {
  DataConfig data;                       ///< what to encode: dataset, path, image_size, channels, num_classes, limit
  Split split = Split::train;
  std::filesystem::path autoencoder;
  std::optional<double> scale_factor;    ///< over what the autoencoder's file says
  std::filesystem::path out;             ///< DIR; the split goes to DIR/train or DIR/test
  bool flips = false;                    ///< also the mirrored images, so that a flip in training is exact
  std::int64_t shard_size = 4096;        ///< images a file
  std::int64_t batch_size = 16;          ///< images a call of the encoder
  std::string device = "cpu";
};

/// Encodes one split of a dataset: the moments of every image, in shards, and their statistics. What an earlier, interrupted call wrote is kept, so it
/// goes on where that stopped; SIGINT stops it after a batch. Images always go through the encoder in batches of one size, the last padded, so
/// moments do not depend on where a shard ends. Throws Error for an unreadable image, or when DIR was begun with other settings.
/// @return the index; its mean is empty where the work was interrupted
LatentIndex encode_latents(const EncodeRequest& request);

}  // namespace uvit
