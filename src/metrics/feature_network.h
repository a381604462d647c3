#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/image_io.h"

namespace uvit {

/// A feature network that is loaded: images in, features (and, where it classifies, logits) out.
class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  /// @param images uint8 [N, C, H, W]: preprocessing (channels, resize, scaling) is the network's own. @return [N, D] float32
  virtual at::Tensor features(const at::Tensor& images) = 0;
  /// Class scores [N, K]; undefined where the network is no classifier.
  virtual at::Tensor logits(const at::Tensor& images) { (void)images; return {}; }
  virtual std::string weights_hash() const = 0;
};

/// A row of the table of feature networks.
struct FeatureNetworkRow {
  std::string name;          ///< for instance "fmnist-cnn"; the score is named FD[fmnist-cnn]@N
  std::string description;
  std::int64_t input_size;   ///< pixels
  std::string preprocess;    ///< what happens to an image, for the recipe
  std::unique_ptr<FeatureNetwork> (*load)();
};

std::span<const FeatureNetworkRow> feature_network_table();
const FeatureNetworkRow& find_feature_network(const std::string& name);

/// Where assets/ is: $UVIT_ASSETS, else beside the source, else beside the program. Throws Error where the file is not there.
std::string asset_path(const std::string& file);

}  // namespace uvit
