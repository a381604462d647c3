#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "core/error.h"
#include "core/name_table.h"
#include "data/datasets.h"
#include "data/file_list.h"
#include "data/image_folder.h"

namespace uvit {

namespace fs = std::filesystem;

bool is_image_name(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::array kEndings = {".jpg", ".jpeg", ".png", ".webp", ".bmp"};
  return std::any_of(kEndings.begin(), kEndings.end(), [&](const char* ending) { return name.ends_with(ending); });
}

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
    if (is_image_name(entries->path().filename().string()) && entries->is_regular_file()) files.push_back(entries->path());
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

std::int64_t class_of(const std::string& name, const FileList& list, const fs::path& root) {
  const auto found = std::find(list.class_names.begin(), list.class_names.end(), name);
  if (found == list.class_names.end()) throw_unknown_name(fmt::format("class folder in {}:", root.string()), name, list.class_names);
  return found - list.class_names.begin();
}

/// The images of the wanted folder, the first `limit` of them (0: all), each of the class whose folder it lies in.
FileList list_split(const Layout& layout, std::int64_t limit) {
  const fs::path& root = layout.wanted;
  FileList list;
  list.class_names = sub_folders(layout.train);
  std::erase_if(list.class_names, [&](const std::string& name) { return list_images(layout.train / name).empty(); });
  list.num_classes = static_cast<std::int64_t>(list.class_names.size());
  for (fs::path& file : list_images(root)) {
    const fs::path inside = file.lexically_relative(root);
    const bool direct = !inside.has_parent_path();
    if (direct == !list.class_names.empty()) {
      throw Error(direct ? fmt::format("{} lies beside the class folders of {}: put it into one, or take the folders away", file.string(), root.string())
                         : fmt::format("{} lies in a class folder, but the training images have no classes", file.string()));
    }
    list.labels.push_back(direct ? 0 : class_of(inside.begin()->string(), list, root));
    list.files.push_back(std::move(file));
    if (limit > 0 && static_cast<std::int64_t>(list.files.size()) == limit) break;
  }
  if (list.files.empty()) throw Error(fmt::format("no image (.jpg .jpeg .png .webp .bmp) in folder {}: set data.path", root.string()));
  return list;
}

}  // namespace

std::unique_ptr<Dataset> open_folder(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset folder has no default place: set data.path to the folder of the images");
  if (!fs::is_directory(config.path)) throw Error(fmt::format("{} is no folder: set data.path to the folder of the images", config.path));
  return make_file_dataset(list_split(find_layout(config.path, split), config.limit), config, config.path);
}

}  // namespace uvit
