#include "metrics/recipe.h"

#include <fmt/format.h>

namespace uvit {

std::vector<std::string> recipe_differences(const Recipe& a, const Recipe& b) {
  Recipe keys = a;
  keys.insert(b.begin(), b.end());
  std::vector<std::string> lines;
  for (const auto& [key, unused] : keys) {
    const auto value = [&key](const Recipe& recipe) {
      const auto found = recipe.find(key);
      return found == recipe.end() ? std::string("(not given)") : found->second;
    };
    if (value(a) != value(b)) lines.push_back(fmt::format("{}: {} against {}", key, value(a), value(b)));
  }
  return lines;
}

}  // namespace uvit
