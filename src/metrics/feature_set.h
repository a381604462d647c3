#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "metrics/feature_network.h"
#include "metrics/frechet.h"
#include "metrics/image_source.h"

namespace uvit {

/// Channels, height, width.
using ImageShape = std::array<std::int64_t, 3>;

/// What is kept of a set of images: `moments` take the memory of one covariance, `rows` that of every feature.
struct Wanted {
  std::set<OutputKind> moments, rows;
  std::string output;  ///< the output that stands for OutputKind::features; "": the network's first
};

/// What a metric is computed from: one set of images seen by one network.
struct FeatureSet {
  std::int64_t num_images = 0;
  std::map<OutputKind, FeatureStatistics> moments;
  std::map<OutputKind, at::Tensor> rows;  ///< [N, D] float32, in the order of the images
  std::vector<std::int64_t> labels;       ///< empty where the images have no class
  std::set<ImageShape> shapes;            ///< of the images; empty where they are not known
};

/// "28 x 28 grey", "32 x 32 to 64 x 48 RGB" for images of several sizes; "unknown" for no shape.
std::string describe_shapes(const std::set<ImageShape>& shapes);

/// Takes images as they come, runs the network over them in batches, and keeps what is wanted: images that are drawn are never all in memory.
class FeatureCollector {
 public:
  /// Throws Error for an output that is not there.
  FeatureCollector(FeatureNetwork& network, const Wanted& wanted, std::int64_t batch_size = 32);
  void add(const Image& image);
  /// @param prepared what the network's prepare() gave of some images @param name of the image so far down, for messages
  /// Throws Error where features are not finite, naming the image.
  void add_prepared(const at::Tensor& prepared, const std::function<std::string(std::int64_t)>& name = {});
  std::int64_t count() const { return count_; }
  /// What was wanted of the images so far. @param labels their classes, or none
  FeatureSet finish(std::vector<std::int64_t> labels = {});

 private:
  void flush();

  FeatureNetwork& network_;
  Wanted wanted_;
  std::size_t batch_size_;
  std::map<OutputKind, std::string> names_;
  std::vector<std::string> outputs_;
  std::vector<Image> waiting_;  ///< all of one shape
  std::int64_t count_ = 0;
  std::set<ImageShape> shapes_;
  std::map<OutputKind, Moments> moments_;
  std::map<OutputKind, std::vector<at::Tensor>> rows_;
};

struct CollectOptions {
  std::int64_t batch_size = 32;  ///< images a network call
  std::int64_t threads = 2;      ///< that decode and resize beside the network
};

/// Reads the images in `options.threads` threads and runs the network over them in order.
/// @param on_progress called with the number of images done
/// Throws Error when there is no image, an image cannot be read, its features are not finite (naming it), or an output is not there.
FeatureSet collect_features(FeatureNetwork& network, const ImageSource& source, const Wanted& wanted, const std::function<void(std::int64_t)>& on_progress = {},
                            const CollectOptions& options = {});

/// Rows of the images numbered `index`, and their labels: a subset or a resample. Moments are those of the rows chosen.
/// @param index int64 [n]; an image may be there more than once
FeatureSet select_images(const FeatureSet& set, const at::Tensor& index);

}  // namespace uvit
