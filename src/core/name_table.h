#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace uvit {

/// The candidate with the smallest edit distance to `name` (optimal string alignment, case folded), else the first that begins with `name`, or "" where none is near
/// enough to be meant.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

/// Throws Error: "unknown WHAT 'NAME': did you mean 'X'? There are: a, b, c".
[[noreturn]] void throw_unknown_name(std::string_view what, std::string_view name, std::span<const std::string> candidates);

/// The row called `name` in a table of rows with a member `name`. Throws Error with the nearest name where there is none.
/// Every thing a user selects by name (attention kind, solver, schedule, dataset, metric) is a row in such a table.
template <class Row>
const Row& find_row(std::span<const Row> table, std::string_view what, std::string_view name) {
  std::vector<std::string> names;
  for (const Row& row : table) {
    if (row.name == name) return row;
    names.emplace_back(row.name);
  }
  throw_unknown_name(what, name, names);
}

}  // namespace uvit
