#include <fmt/format.h>

#include <array>

#include "core/error.h"
#include "core/hash.h"
#include "core/name_table.h"
#include "data/dataset.h"
#include "data/datasets.h"

namespace uvit {

std::span<const DatasetRow> dataset_table() {
  static const std::array rows = {
      DatasetRow{"fashion_mnist", "70,000 garments, 28 x 28 grey, 10 classes (Debian's package dataset-fashion-mnist)",
                 "/usr/share/datasets/fashion-mnist", 28, 1, open_fashion_mnist},
      DatasetRow{"idx", "a folder with the four files of MNIST's names, .gz or not", "", 0, 0, open_idx},
      DatasetRow{"cifar10", "60,000 images, 32 x 32 RGB, 10 classes (the binary version)", "data/cifar-10-batches-bin", 32, 3, open_cifar10},
      DatasetRow{"cifar100", "60,000 images, 32 x 32 RGB, 100 fine classes (the binary version)", "data/cifar-100-binary", 32, 3, open_cifar100},
      DatasetRow{"folder",
                 "JPEG, PNG, WebP and BMP images; a sub-folder is a class; train/ and test/ or val/ are splits, else both splits are all images", "",
                 0, 0, open_folder},
  };
  return rows;
}

std::unique_ptr<Dataset> open_dataset(const DataConfig& config, Split split) {
  const DatasetRow& row = find_row(dataset_table(), "dataset", config.dataset);
  DataConfig resolved = config;
  if (resolved.path.empty()) resolved.path = row.default_path;
  std::unique_ptr<Dataset> dataset = row.open(resolved, split);
  if (config.num_classes > 0 && dataset->num_classes() != config.num_classes) {
    throw Error(fmt::format("data.num_classes is {}, but dataset {} at {} has {} classes: set it to that number, or to 0 for no classes",
                            config.num_classes, config.dataset, resolved.path, dataset->num_classes()));
  }
  return dataset;
}

std::string content_hash(const Dataset& dataset, std::int64_t limit) {
  constexpr std::int64_t kChunk = 1024;  // images a digest is taken over, so that no second copy of a large set is made
  const std::int64_t count = limit > 0 ? std::min(limit, dataset.size()) : dataset.size();
  const std::int64_t pixels = dataset.channels() * dataset.height() * dataset.width();
  std::string digests = fmt::format("{}x{}x{}x{}\n", count, dataset.channels(), dataset.height(), dataset.width());
  std::vector<std::uint8_t> chunk;
  for (std::int64_t first = 0; first < count; first += kChunk) {
    const std::int64_t images = std::min(kChunk, count - first);
    chunk.resize(static_cast<std::size_t>(images * pixels));
    for (std::int64_t i = 0; i < images; ++i)
      dataset.read(first + i, std::span(chunk).subspan(static_cast<std::size_t>(i * pixels), static_cast<std::size_t>(pixels)));
    digests += sha256(std::as_bytes(std::span(chunk))) + "\n";
  }
  return sha256(std::as_bytes(std::span(digests)));
}

}  // namespace uvit
