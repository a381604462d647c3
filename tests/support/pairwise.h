#pragma once
#include <cstddef>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace uvit::test {

/// One thing to choose, and its values by name.
struct Factor {
  std::string name;
  std::vector<std::string> values;
};

/// A value of a factor: "schedule=edm".
inline std::string setting(const Factor& factor, std::size_t value) { return factor.name + "=" + factor.values[value]; }

/// Rows, one value a factor, in which every pair of values of two factors occurs that `forbidden` does not name (pairs of settings, in either order),
/// and no pair that it does. Greedy and deterministic: each row begins with the first pair that is missing, and every further factor, in order, takes
/// the value that adds most missing pairs, the first one of equals.
class Pairwise {
 public:
  using Row = std::vector<std::size_t>;

  Pairwise(std::vector<Factor> factors, std::set<std::pair<std::string, std::string>> forbidden)
      : factors_(std::move(factors)), forbidden_(std::move(forbidden)) {
    for (std::size_t a = 0; a < factors_.size(); ++a)
      for (std::size_t b = a + 1; b < factors_.size(); ++b)
        for (std::size_t i = 0; i < factors_[a].values.size(); ++i)
          for (std::size_t j = 0; j < factors_[b].values.size(); ++j)
            if (!is_forbidden(a, i, b, j)) missing_.insert(pair(a, i, b, j));
    wanted_ = missing_.size();
    while (!missing_.empty()) rows_.push_back(next_row());
  }

  const std::vector<Row>& rows() const { return rows_; }
  std::size_t pairs() const { return wanted_; }

 private:
  using Pair = std::pair<std::pair<std::size_t, std::size_t>, std::pair<std::size_t, std::size_t>>;
  static constexpr std::size_t kOpen = static_cast<std::size_t>(-1);

  static Pair pair(std::size_t a, std::size_t i, std::size_t b, std::size_t j) {
    return a < b ? Pair{{a, i}, {b, j}} : Pair{{b, j}, {a, i}};
  }
  bool is_forbidden(std::size_t a, std::size_t i, std::size_t b, std::size_t j) const {
    const std::string first = setting(factors_[a], i), second = setting(factors_[b], j);
    return forbidden_.contains({first, second}) || forbidden_.contains({second, first});
  }

  Row next_row() {
    Row row(factors_.size(), kOpen);
    const Pair seed = *missing_.begin();
    row[seed.first.first] = seed.first.second;
    row[seed.second.first] = seed.second.second;
    for (std::size_t factor = 0; factor < factors_.size(); ++factor)
      if (row[factor] == kOpen) row[factor] = best_value(row, factor);
    for (std::size_t a = 0; a < row.size(); ++a)
      for (std::size_t b = a + 1; b < row.size(); ++b) missing_.erase(pair(a, row[a], b, row[b]));
    return row;
  }

  std::size_t best_value(const Row& row, std::size_t factor) const {
    std::size_t best = kOpen, best_gain = 0;
    for (std::size_t value = 0; value < factors_[factor].values.size(); ++value) {
      std::size_t gain = 0;
      bool allowed = true;
      for (std::size_t other = 0; other < row.size(); ++other) {
        if (row[other] == kOpen) continue;
        allowed = allowed && !is_forbidden(factor, value, other, row[other]);
        gain += missing_.count(pair(factor, value, other, row[other]));
      }
      if (!allowed || (best != kOpen && gain <= best_gain)) continue;
      best = value;
      best_gain = gain;
    }
    return best;
  }

  std::vector<Factor> factors_;
  std::set<std::pair<std::string, std::string>> forbidden_;
  std::set<Pair> missing_;
  std::size_t wanted_ = 0;
  std::vector<Row> rows_;
};

}  // namespace uvit::test
