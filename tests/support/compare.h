#pragma once
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace uvit::test {

/// max |value - reference| <= budget, element by element. A failure prints the worst index, both values and the share of the budget used. A NaN fails.
inline void check_close(const std::string& what, const std::vector<double>& value, const std::vector<double>& reference, double budget) {
  REQUIRE(value.size() == reference.size());
  double worst = -1;
  std::size_t at = 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const double error = std::isinf(reference[i]) && value[i] == reference[i] ? 0.0 : std::abs(value[i] - reference[i]);
    if (!(error <= worst)) {
      worst = error;
      at = i;
      if (std::isnan(error)) break;
    }
  }
  char text[256] = "";
  if (!value.empty())
    std::snprintf(text, sizeof text, "worst at %zu: %.9g, reference %.9g, error %.3g, budget %.3g (%.1f %%)", at, value[at], reference[at], worst, budget,
                  100 * worst / budget);
  INFO(what << ": " << text);
  CHECK((value.empty() || worst <= budget));
}

/// Largest absolute value.
inline double max_abs(const std::vector<double>& values) {
  double largest = 0;
  for (double v : values) largest = std::fmax(largest, std::abs(v));
  return largest;
}

}  // namespace uvit::test
