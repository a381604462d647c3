#include "data/cifar_file.h"
#include "data/datasets.h"

namespace uvit {

std::unique_ptr<Dataset> open_cifar10(const DataConfig& config, Split split) {
  const std::vector<std::string> train = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"};
  const std::vector<std::string> files = split == Split::train ? train : std::vector<std::string>{"test_batch.bin"};
  RawImages raw = read_cifar(config.path, "cifar-10-batches-bin", files, 1,
                             "unpack cifar-10-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html) and set data.path to its folder");
  raw.class_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  raw.num_classes = 10;
  return make_memory_dataset(std::move(raw), config);
}

}  // namespace uvit
