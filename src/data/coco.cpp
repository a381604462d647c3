#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/datasets.h"
#include "data/file_list.h"
#include "io/json_field.h"

namespace uvit {
namespace fs = std::filesystem;

/// Images in the order of their id, as captions of the same file are numbered (read_captions).
std::unique_ptr<Dataset> open_coco(const DataConfig& config, Split split) {
  const fs::path root = config.path;
  for (const char* year : {"2014", "2017"}) {
    const std::string part = std::string(split == Split::train ? "train" : "val") + year;
    const fs::path annotations = root / "annotations" / ("captions_" + part + ".json");
    if (!fs::is_regular_file(annotations)) continue;
    std::map<std::int64_t, std::string> names;
    try {
      const auto json = nlohmann::json::parse(read_file(annotations));
      for (const auto& image : json.at("images")) names[integer_at(image, "id")] = image.at("file_name").get<std::string>();
    } catch (const nlohmann::json::exception& error) {
      throw Error(fmt::format("cannot read {} as COCO's captions: {}", annotations.string(), error.what()));
    }
    FileList list;
    for (const auto& [id, name] : names) list.files.push_back(root / part / name);
    return make_file_dataset(std::move(list), config, annotations.string());
  }
  throw Error(fmt::format("{} has no annotations/captions_{}2014.json (or 2017): set data.path to COCO's folder", root.string(),
                          split == Split::train ? "train" : "val"));
}

}  // namespace uvit
