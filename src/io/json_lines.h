#pragma once
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

namespace uvit {

/// Calls `take` with each line of a file of JSON lines, in order: a discarded value where the line is no JSON. Nothing where there is no file.
void for_each_json_line(const std::filesystem::path& file, const std::function<void(const nlohmann::ordered_json& json)>& take);

/// Rewrites the file without the lines that are no objects and those that `keep`, called with each object in order, says no to. Nothing where there is no
/// file, or nothing to leave out.
void keep_json_lines(const std::filesystem::path& file, const std::function<bool(const nlohmann::ordered_json& object)>& keep);

}  // namespace uvit
