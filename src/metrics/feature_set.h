#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/image_io.h"
#include "metrics/feature_network.h"
#include "metrics/frechet.h"

namespace uvit {

/// Images to take features of. `read` and `name` must be safe from several threads.
struct ImageSource {
  std::int64_t count = 0;
  std::function<Image(std::int64_t)> read;        ///< any size, 1, 3 or 4 channels
  std::function<std::string(std::int64_t)> name;  ///< for messages; may be empty
  std::vector<std::int64_t> labels;               ///< class of each image; empty where there are none
};

/// The image files of a folder and its sub-folders, sorted by path as strings. @param limit the first so many; 0: all
ImageSource folder_source(const std::string& folder, std::int64_t channels, std::int64_t limit = 0);
/// Images of a dataset, which must outlive the source, with their labels.
ImageSource dataset_source(const Dataset& dataset, std::int64_t limit = 0);
/// Images in memory, which must outlive the source.
ImageSource memory_source(const std::vector<Image>& images, std::vector<std::int64_t> labels = {});

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
