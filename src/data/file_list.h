#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/image_io.h"

namespace uvit {

/// Image files with classes, decoded when they are read.
struct FileList {
  std::vector<std::filesystem::path> files;
  std::vector<std::int64_t> labels;       ///< one a file; empty without classes
  std::vector<std::string> class_names;   ///< may be empty where classes are numbers
  std::int64_t num_classes = 0;
  std::function<Image(Image)> prepare;    ///< applied to an image before it is scaled and cut; may be empty
};

/// "jpg" of "a/B.JPG".
std::string ending_of(const std::string& name);

/// A dataset of these files, scaled to cover config's size and cut in the centre; the first config.limit of them. Throws Error where there is none.
/// @param origin  what lists them, for messages
std::unique_ptr<Dataset> make_file_dataset(FileList list, const DataConfig& config, const std::string& origin);

/// Classes of a list: numbers as they are; words sorted by name and numbered. Fills labels, class_names and num_classes of `list`.
void assign_classes(FileList& list, const std::vector<std::string>& classes);

}  // namespace uvit
