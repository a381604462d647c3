#pragma once
#include <memory>

#include "data/dataset.h"

// The datasets of the table, one .cpp each.
namespace uvit {

std::unique_ptr<Dataset> open_fashion_mnist(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_idx(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_cifar10(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_cifar100(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_folder(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_listed(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_celeba(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_coco(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_zip(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_shards(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_latents(const DataConfig& config, Split split);
std::unique_ptr<Dataset> open_coco_features(const DataConfig& config, Split split);

}  // namespace uvit
