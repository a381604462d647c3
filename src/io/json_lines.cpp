#include "io/json_lines.h"

#include <sstream>
#include <string>

#include "core/atomic_file.h"

namespace uvit {
namespace {

using Json = nlohmann::ordered_json;

void for_each_line(const std::string& text, const std::function<void(const std::string& line, const Json& json)>& take) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) take(line, Json::parse(line, nullptr, /*allow_exceptions=*/false));
}

}  // namespace

void for_each_json_line(const std::filesystem::path& file, const std::function<void(const Json& json)>& take) {
  if (!std::filesystem::exists(file)) return;
  for_each_line(read_file(file), [&](const std::string&, const Json& json) { take(json); });
}

void keep_json_lines(const std::filesystem::path& file, const std::function<bool(const Json& object)>& keep) {
  if (!std::filesystem::exists(file)) return;
  const std::string text = read_file(file);
  std::string kept;
  for_each_line(text, [&](const std::string& line, const Json& json) {
    if (json.is_object() && keep(json)) kept += line + "\n";
  });
  if (kept != text) write_file(file, kept);
}

}  // namespace uvit
