#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace uvit {

struct PackRequest {
  std::filesystem::path out;                    ///< folder of the shards, which is there
  std::string source;                           ///< what is packed, for people
  std::uint64_t shard_bytes = std::uint64_t{512} << 20;  ///< a shard that has reached this is closed
  std::int64_t threads = 1;
  bool pixels = false;       ///< store what Dataset::read gives, as PNG, in place of the files
  bool skip_broken = false;  ///< leave images out whose file is damaged; else they are an Error
  std::function<std::vector<std::string>(std::int64_t)> captions = {};  ///< of image `index`, beside those that lie beside it
  std::function<bool()> stop = {};              ///< asked between images
};

struct PackResult {
  std::int64_t images = 0, shards = 0, captions = 0, skipped = 0;
  std::uint64_t bytes = 0;
};

/// Writes the images of a dataset, in its order, into tar shards 00000.tar, ... with index.json and samples.bin (shard_index.h): the files as they are where the
/// dataset is made of image files, else PNGs of their pixels. Equal images give equal bytes. Throws Error naming the image that cannot be read.
PackResult pack_dataset(const Dataset& dataset, const PackRequest& request);

}  // namespace uvit
