#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace uvit {

/// Images of one size as a file format stores them, before they are converted to what the config asks for.
struct RawImages {
  std::int64_t channels = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;      ///< [N, C, H, W]
  std::vector<std::uint8_t> labels;      ///< [N]
  std::vector<std::string> class_names;  ///< may be empty
  std::int64_t num_classes = 0;
  std::function<std::string(std::int64_t)> describe;  ///< name of image i
};

/// A dataset that holds all its images in memory, converted to config's channels and size; only the first config.limit when that is set.
/// Throws Error when a label is not below num_classes (naming the image) or the images are smaller than asked.
std::unique_ptr<Dataset> make_memory_dataset(RawImages raw, const DataConfig& config);

}  // namespace uvit
