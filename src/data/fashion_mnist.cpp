#include "data/datasets.h"
#include "data/idx_file.h"

namespace uvit {

// 60,000 training and 10,000 test images of garments, 28 x 28 grey. Xiao et al., arXiv:1708.07747.
std::unique_ptr<Dataset> open_fashion_mnist(const DataConfig& config, Split split) {
  RawImages raw = read_idx_split(config.path, split,
                                 "install it with 'apt-get install dataset-fashion-mnist' (Debian), or set data.path to the folder of the files");
  raw.class_names = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};
  raw.num_classes = 10;
  return make_memory_dataset(std::move(raw), config);
}

}  // namespace uvit
