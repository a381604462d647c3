#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "core/error.h"
#include "core/name_table.h"
#include "data/datasets.h"
#include "data/image_folder.h"
#include "data/image_io.h"

namespace uvit {

namespace fs = std::filesystem;

std::vector<fs::path> list_images(const fs::path& folder) {
  std::error_code code;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::follow_directory_symlink, code);
  if (code) throw Error(fmt::format("cannot read folder {}: {}", folder.string(), code.message()));
  std::vector<fs::path> files;
  for (const fs::recursive_directory_iterator end; entries != end; entries.increment(code)) {
    if (code) throw Error(fmt::format("cannot read folder {}: {}", folder.string(), code.message()));
    if (entries->path().filename().string().starts_with('.')) {
      entries.disable_recursion_pending();
      continue;
    }
    std::string ending = entries->path().extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const bool image = ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp" || ending == ".bmp";
    if (image && entries->is_regular_file()) files.push_back(entries->path());
  }
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return files;
}

namespace {

std::vector<std::string> sub_folders(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && !name.starts_with('.')) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Layout {
  fs::path train, wanted;  ///< folder that fixes the classes, folder of the split that was asked for
};

// train/ beside test/ or val/ are splits. A folder "train" beside any other sub-folder is a class of that name.
Layout find_layout(const fs::path& root, Split split) {
  const std::vector<std::string> names = sub_folders(root);
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  const auto is_split = [](const std::string& name) { return name == "train" || name == "test" || name == "val"; };
  if (!has("train") || !std::all_of(names.begin(), names.end(), is_split)) return {root, root};
  const fs::path train = root / "train";
  if (split == Split::train || names.size() == 1) return {train, train};
  return {train, root / (has("test") ? "test" : "val")};
}

/// Images of any size in a folder, decoded when they are read.
class FolderDataset : public Dataset {
 public:
  FolderDataset(const DataConfig& config, const Layout& layout) : config_(config), root_(layout.wanted), class_names_(sub_folders(layout.train)) {
    std::erase_if(class_names_, [&](const std::string& name) { return list_images(layout.train / name).empty(); });
    for (fs::path& file : list_images(root_)) {
      const fs::path inside = file.lexically_relative(root_);
      const bool direct = !inside.has_parent_path();
      if (direct == !class_names_.empty()) {
        throw Error(
            direct ? fmt::format("{} lies beside the class folders of {}: put it into one, or take the folders away", file.string(), root_.string())
                   : fmt::format("{} lies in a class folder, but the training images have no classes", file.string()));
      }
      labels_.push_back(direct ? 0 : class_of(inside.begin()->string()));
      files_.push_back(std::move(file));
      if (config.limit > 0 && size() == config.limit) break;
    }
    if (files_.empty()) throw Error(fmt::format("no image (.jpg .jpeg .png .webp .bmp) in folder {}: set data.path", root_.string()));
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(files_.size()); }
  std::int64_t channels() const override { return config_.channels; }
  std::int64_t height() const override { return config_.height(); }
  std::int64_t width() const override { return config_.width(); }
  std::int64_t num_classes() const override { return static_cast<std::int64_t>(class_names_.size()); }
  std::vector<std::string> class_names() const override { return class_names_; }
  std::int64_t label(std::int64_t index) const override { return labels_.at(static_cast<std::size_t>(index)); }
  std::string describe(std::int64_t index) const override { return files_.at(static_cast<std::size_t>(index)).string(); }

  void read(std::int64_t index, std::span<std::uint8_t> pixels) const override {
    const Image image = read_image(files_.at(static_cast<std::size_t>(index)), config_.channels);
    try {
      const Image cut = resize_and_center_crop(image, height(), width());
      std::copy(cut.pixels.begin(), cut.pixels.end(), pixels.begin());
    } catch (const Error& e) {
      throw Error(fmt::format("{}: {}", describe(index), e.what()));
    }
  }

 private:
  std::int64_t class_of(const std::string& name) const {
    const auto found = std::find(class_names_.begin(), class_names_.end(), name);
    if (found == class_names_.end()) throw_unknown_name(fmt::format("class folder in {}:", root_.string()), name, class_names_);
    return found - class_names_.begin();
  }

  DataConfig config_;
  fs::path root_;
  std::vector<std::string> class_names_;
  std::vector<fs::path> files_;
  std::vector<std::int64_t> labels_;
};

}  // namespace

std::unique_ptr<Dataset> open_folder(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset folder has no default place: set data.path to the folder of the images");
  if (!fs::is_directory(config.path)) throw Error(fmt::format("{} is no folder: set data.path to the folder of the images", config.path));
  return std::make_unique<FolderDataset>(config, find_layout(config.path, split));
}

}  // namespace uvit
