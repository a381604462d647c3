#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/memory_dataset.h"

namespace uvit {

/// Reads CIFAR's "binary version": records of `label_bytes` labels, of which the last is used, then 3072 bytes, the 32 x 32 planes of red, green and
/// blue. The files lie in `folder` or in its sub-folder `archive_folder` (what the archive unpacks to). Throws Error naming the file when one is
/// missing, empty, or not a whole number of records. Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images".
RawImages read_cifar(const std::filesystem::path& folder, const std::string& archive_folder, const std::vector<std::string>& files,
                     std::size_t label_bytes, const std::string& advice);

}  // namespace uvit
