#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/image_io.h"
#include "io/host_tensor.h"

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
/// Images of a dataset, with their labels.
ImageSource dataset_source(std::shared_ptr<const Dataset> dataset, std::int64_t limit = 0);
/// The same of one that outlives the source.
ImageSource dataset_source(const Dataset& dataset, std::int64_t limit = 0);
/// Images in memory, which must outlive the source.
ImageSource memory_source(const std::vector<Image>& images, std::vector<std::int64_t> labels = {});
/// The images of an .npz as guided-diffusion's sampler writes it and its evaluator reads it: arr_0 uint8 [N, H, W, C], C = 1, 3 or 4; classes arr_1 [N]
/// where it is there. @param origin the file, for messages. Throws Error naming it for another dtype or shape.
ImageSource npz_source(const TensorFile& npz, const std::string& origin, std::int64_t limit = 0);

}  // namespace uvit
