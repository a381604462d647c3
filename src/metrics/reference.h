#pragma once
#include <string>

#include "config/config.h"
#include "metrics/feature_set.h"

namespace uvit {

/// One side of a comparison: a folder of images, an .npz of images (npz_source) or of statistics, or the name of a dataset ("fashion_mnist",
/// "fashion_mnist:test").
struct Reference {
  FeatureSet set;
  std::string name;  ///< as given, with the split
  std::string hash;  ///< SHA-256 of what `set` keeps: mu and sigma, or the rows
  ImageSource images;  ///< none where only statistics are known
};
/// A dataset is the training split unless ":test" follows its name. Its images are opened as `data` says where that names the same dataset, else at
/// their own size and from their default place (from data.path where data.dataset is empty). Where nothing but the moments of the network's first
/// output is wanted, they come from assets/ or from the cache ($XDG_CACHE_HOME/uvit or ~/.cache/uvit) if these hold the same network, preparation and
/// pixels, by their hashes; else they are computed and cached.
/// A folder's images (sub-folders too, sorted by path) are taken whole, at their own size.
/// @param limit images used at most; 0: all
/// Throws Error when `spec` is none of these, or an .npz is of another network, or holds not what is wanted.
Reference load_reference(const std::string& spec, FeatureNetwork& network, const Wanted& wanted, std::int64_t limit, const DataConfig& data);

/// What a recipe says of the two sides: num_images, image_size, reference, reference_hash, reference_images, reference_image_size.
Recipe comparison_recipe(const FeatureSet& generated, const Reference& reference);

}  // namespace uvit
