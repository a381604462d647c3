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
      DatasetRow{"listed", "images with classes from a list beside them: FILE,CLASS lines (.csv), or json {FILE: CLASS} or [[FILE, CLASS], ...]", "", 0, 0,
                 open_listed},
      DatasetRow{"celeba", "img_align_celeba/ and list_eval_partition.txt; cut to 128 x 128 about (89, 121) as U-ViT does, no classes", "data/celeba", 0, 3,
                 open_celeba},
      DatasetRow{"coco", "train2014/, val2014/ and annotations/captions_*.json (or 2017), in the order of the image ids", "data/coco", 0, 3, open_coco},
      DatasetRow{"zip", "a .zip of images as EDM writes it, with the classes of its dataset.json; both splits are all images", "", 0, 0, open_zip},
      DatasetRow{"shards", "tar shards as `uvit pack` writes them, with labels and captions inside, or any webdataset of images", "", 0, 0, open_shards},
      DatasetRow{"latents", "what `uvit encode` writes: an autoencoder's latents, with captions where `uvit encode-text` added them", "", 0, 0, open_latents,
                 true},
      DatasetRow{"coco_features", "the official U-ViT folder of latents and captions: train/ and val/ of 0.npy, 0_0.npy ..., empty_context.npy", "", 32, 4,
                 open_coco_features, true},
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

bool is_latent_dataset(const std::string& name) { return find_row(dataset_table(), "dataset", name).latent; }

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
