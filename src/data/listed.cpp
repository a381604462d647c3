#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/datasets.h"
#include "data/file_list.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

struct Listed {
  std::vector<std::string> files, classes;
};

std::string text_of(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/// {FILE: CLASS, ...}, [[FILE, CLASS], ...] or either under "labels".
Listed read_json_list(const std::string& text) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("labels")) json = nlohmann::ordered_json(json["labels"]);
  Listed listed;
  if (json.is_object()) {
    for (const auto& [file, name] : json.items()) {
      listed.files.push_back(file);
      listed.classes.push_back(text_of(name));
    }
    return listed;
  }
  if (!json.is_array()) throw Error("it is neither {FILE: CLASS} nor [[FILE, CLASS], ...]");
  for (const auto& entry : json) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string()) throw Error(fmt::format("'{}' is no [FILE, CLASS]", entry.dump()));
    listed.files.push_back(entry[0].get<std::string>());
    listed.classes.push_back(text_of(entry[1]));
  }
  return listed;
}

/// FILE,CLASS a line; a first line whose FILE does not exist is a heading.
Listed read_csv_list(const std::string& text, const fs::path& folder) {
  Listed listed;
  std::istringstream lines(text);
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    while (line.ends_with('\r') || line.ends_with(' ')) line.pop_back();
    if (line.empty()) continue;
    const std::size_t comma = line.rfind(',');
    if (comma == std::string::npos) throw Error(fmt::format("line {} is no FILE,CLASS", number));
    std::string file = line.substr(0, comma);
    if (file.size() > 1 && file.starts_with('"') && file.ends_with('"')) file = file.substr(1, file.size() - 2);
    std::error_code no_name;  // one that is too long, say
    if (number == 1 && !fs::exists(folder / file, no_name)) continue;
    listed.files.push_back(std::move(file));
    listed.classes.push_back(line.substr(comma + 1));
  }
  return listed;
}

}  // namespace

std::unique_ptr<Dataset> open_listed(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset listed has no default place: set data.path to a .csv or .json, or to a folder with train and test ones");
  fs::path path = config.path;
  if (fs::is_directory(path)) {
    const std::string name = split == Split::train ? "train" : "test";
    path = fs::exists(path / (name + ".csv")) ? path / (name + ".csv") : path / (name + ".json");
  }
  const std::string text = read_file(path);
  const fs::path folder = path.parent_path();
  try {
    const Listed listed = path.extension() == ".json" ? read_json_list(text) : read_csv_list(text, folder);
    FileList list;
    for (const std::string& file : listed.files) list.files.push_back(folder / file);
    assign_classes(list, listed.classes);
    return make_file_dataset(std::move(list), config, path.string());
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read the class list {}: {}", path.string(), error.what()));
  }
}

}  // namespace uvit
