#include <algorithm>

#include "core/error.h"
#include "data/datasets.h"
#include "data/idx_file.h"

namespace uvit {

// A file of labels does not say how many classes there are: data.num_classes does, and without it the largest label.
std::unique_ptr<Dataset> open_idx(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset idx has no default place: set data.path to the folder of its four files");
  RawImages raw = read_idx_split(config.path, split, "set data.path to a folder with the four files of MNIST's names");
  raw.num_classes = config.num_classes;
  if (raw.num_classes == 0 && !raw.labels.empty()) raw.num_classes = *std::max_element(raw.labels.begin(), raw.labels.end()) + 1;
  return make_memory_dataset(std::move(raw), config);
}

}  // namespace uvit
