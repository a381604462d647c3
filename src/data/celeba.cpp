#include <fmt/format.h>

#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/datasets.h"
#include "data/file_list.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// The 128 x 128 pixels about column 89, row 121 of an aligned image (178 x 218), as the official U-ViT cuts them.
Image cut_face(Image image) {
  constexpr std::int64_t kTop = 121 - 64, kLeft = 89 - 64, kSide = 128;
  if (image.height < kTop + kSide || image.width < kLeft + kSide)
    throw Error(fmt::format("it has {} x {} pixels (height x width), and the aligned CelebA has 218 x 178", image.height, image.width));
  Image cut{image.channels, kSide, kSide, {}};
  cut.pixels.reserve(static_cast<std::size_t>(image.channels * kSide * kSide));
  for (std::int64_t c = 0; c < image.channels; ++c)
    for (std::int64_t y = kTop; y < kTop + kSide; ++y) {
      const auto row = image.pixels.begin() + (c * image.height + y) * image.width + kLeft;
      cut.pixels.insert(cut.pixels.end(), row, row + kSide);
    }
  return cut;
}

}  // namespace

/// list_eval_partition.txt: "000001.jpg 0" a line; 0 training, 1 validation, 2 test (Liu et al., arXiv:1411.7766).
std::unique_ptr<Dataset> open_celeba(const DataConfig& config, Split split) {
  const fs::path root = config.path, partition = root / "list_eval_partition.txt";
  if (!fs::is_regular_file(partition))
    throw Error(fmt::format("{} has no list_eval_partition.txt: set data.path to the folder with it and img_align_celeba/", root.string()));
  FileList list;
  list.prepare = cut_face;
  std::istringstream lines(read_file(partition));
  const std::string wanted = split == Split::train ? "0" : "2";
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line);
    std::string file, part;
    if (!(words >> file)) continue;
    if (!(words >> part) || (part != "0" && part != "1" && part != "2"))
      throw Error(fmt::format("{} line {} is no 'FILE 0', 'FILE 1' or 'FILE 2'", partition.string(), number));
    if (part == wanted) list.files.push_back(root / "img_align_celeba" / file);
  }
  return make_file_dataset(std::move(list), config, partition.string());
}

}  // namespace uvit
