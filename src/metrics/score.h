#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/image_io.h"
#include "metrics/feature_network.h"
#include "metrics/frechet.h"

namespace uvit {

/// A score never stands alone: its value with everything needed to get it again.
struct Score {
  std::string metric;  ///< "FD[fmnist-cnn]@2000"
  double value = 0;
  std::map<std::string, std::string>
      recipe;  ///< num_images, reference and its hash, network and its hash, resize, solver, nfe, guidance_scale, weights, precision, seeds
};

/// "FD[fmnist-cnn]@2000 = 12.34  (network fmnist-cnn, ...)": one line; hashes are cut to 12 digits.
std::string format_score(const Score& score);
/// Appends one JSON line {metric, value, recipe} with whole hashes. @param path  a file, or the run folder, whose scores.jsonl is meant
void append_score(const std::string& path, const Score& score);

/// Features of `count` images that `image(i)` gives as uint8, in batches of equal images. @return [count, D] float32
/// @param on_progress  called with the number of images done
/// Throws Error when there is none, and whatever `image` throws.
at::Tensor collect_features(FeatureNetwork& network, std::int64_t count, const std::function<Image(std::int64_t)>& image,
                            const std::function<void(std::int64_t)>& on_progress = {});

/// Share of images whose largest class score is that of the class asked for. Throws Error when the network is no classifier, there are no images, or
/// images and labels differ in number.
double class_agreement(FeatureNetwork& network, const std::vector<Image>& images, const std::vector<std::int64_t>& labels);

/// One side of a comparison: a folder of images, an .npz of statistics, or the name of a dataset ("fashion_mnist", "fashion_mnist:test").
struct Reference {
  FeatureStatistics statistics;
  std::string name;  ///< as given, with the split
  std::string hash;  ///< SHA-256 of mu and sigma
};
/// A dataset is the training split unless ":test" follows its name. Its images are opened as `data` says where that names the same dataset, else at
/// their own size and from their default place (from data.path where data.dataset is empty). Its statistics come from assets/ or from the cache
/// ($XDG_CACHE_HOME/uvit or ~/.cache/uvit) where these hold the same network and the same pixels, by their hashes; else they are computed and cached.
/// A folder's images (sub-folders too, sorted by path) are taken whole, at their own size.
/// @param limit images used at most; 0: all
/// Throws Error when `spec` is none of the three, or an .npz is of another network.
Reference load_reference(const std::string& spec, const FeatureNetworkRow& row, FeatureNetwork& network, std::int64_t limit, const DataConfig& data);

}  // namespace uvit
