#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "metrics/recipe.h"

namespace uvit {

/// What an output is good for: distances between features, sFID's features that keep their place in the image, class scores.
enum class OutputKind { features, spatial, logits };

/// One thing that a feature network gives of an image: `dims` numbers.
struct FeatureOutput {
  std::string name;  ///< "2048", "logits", ...
  OutputKind kind;
  std::int64_t dims;
};

/// Output name -> [N, dims] float32 on the CPU.
using NamedFeatures = std::map<std::string, at::Tensor>;

/// A feature network that is loaded: images in, features out, in two steps, so that the first can run beside the second.
class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  /// Row of the table, with its file where it has one: "inception", "script:dinov2.pt".
  virtual std::string name() const = 0;
  /// That an image file is read with: 1 grey, 3 RGB.
  virtual std::int64_t channels() const = 0;
  /// All outputs; the first is the one that a Frechet distance is taken over unless another is asked for.
  virtual std::vector<FeatureOutput> outputs() const = 0;
  /// Channels, resize, scaling. Safe from several threads.
  /// @param images uint8 [N, C, H, W], C = 1, 3 or 4 (alpha is dropped) @return float32 [N, c, h, w] of the network's own shape
  virtual at::Tensor prepare(const at::Tensor& images) const = 0;
  /// @param prepared what `prepare` gave @param wanted names of outputs
  virtual NamedFeatures run(const at::Tensor& prepared, const std::vector<std::string>& wanted) = 0;
  /// SHA-256 of the file of weights.
  virtual std::string weights_hash() const = 0;
  /// What happens to an image before the network, in words: statistics of two preparations are not comparable.
  virtual std::string preprocess() const = 0;
  /// "fp32" or "bf16".
  virtual std::string precision() const { return "fp32"; }

  /// The output called `name`, or the first of `kind`. Throws Error with the nearest name, or saying that there is none.
  FeatureOutput output(const std::string& name) const;
  FeatureOutput output(OutputKind kind) const;
  /// The first output of uint8 images. @return [N, D] float32
  at::Tensor features(const at::Tensor& images);
  /// network, network_hash, preprocess, precision.
  Recipe recipe() const;
};

/// How a network is loaded; what a network has no use for must be left as it is.
struct NetworkOptions {
  std::string weights;             ///< inception: the published file of weights
  bool any_weights = false;        ///< inception: take a file whose hash is not the published one's
  std::string resize;              ///< row of the resize table; "": the network's own
  std::string precision = "fp32";  ///< inception: "bf16" too, whose scores differ a little
  std::string device = "cpu";
};

/// A row of the table of feature networks.
struct FeatureNetworkRow {
  std::string name;  ///< for instance "fmnist-cnn"; the score is named FD[fmnist-cnn]@N
  std::string description;
  /// @param file what follows "NAME:" in the name asked for
  std::unique_ptr<FeatureNetwork> (*load)(const std::string& file, const NetworkOptions& options);
};

std::span<const FeatureNetworkRow> feature_network_table();
/// Loads "NAME" or "NAME:FILE". Throws Error with the nearest name where there is no such row, for an option that the network has no use for, and for a
/// file that is missing or damaged.
std::unique_ptr<FeatureNetwork> load_feature_network(const std::string& name, const NetworkOptions& options = {});

/// uint8 [N, 1, 3 or 4, H, W] -> float32 [N, channels, H, W] in 0 .. 255: grey repeated, colour to grey by ITU-R 601 luma, alpha dropped.
/// Throws Error that begins with `network` for another dtype or number of channels.
at::Tensor float_image(const at::Tensor& images, std::int64_t channels, const std::string& network);

/// Where assets/<file> is: in $UVIT_ASSETS, else beside the source, else beside the program. Throws Error where the file is not there.
std::string asset_path(const std::string& file);

}  // namespace uvit
