#include "metrics/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/name_table.h"
#include "io/json_lines.h"
#include "metrics/error_bars.h"

namespace uvit {
namespace {

using nlohmann::ordered_json;

struct MeanAndInterval {
  double mean = 0;
  std::optional<Interval> interval;
};

// Student's 95 % interval of the mean of values that are independent; none for one value.
MeanAndInterval student(const std::vector<double>& values) {
  const double n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double each : values) mean += each / n;
  if (values.size() < 2) return {mean, std::nullopt};
  for (const double each : values) squares += (each - mean) * (each - mean);
  const double half = student_quantile(0.975, static_cast<std::int64_t>(values.size()) - 1) * std::sqrt(squares / (n - 1) / n);
  return {mean, Interval{mean - half, mean + half}};
}

double half_width(const Interval& interval) { return (interval.high - interval.low) / 2; }

// What may differ between two scores that are compared: the models, and what is particular to their images.
bool may_differ(const std::string& line) {
  for (const char* key : {"weights", "weights_hash", "guide", "guide_hash", "images", "images_hash", "step", "interval"}) {
    if (line.starts_with(std::string(key) + ": ")) return true;
  }
  return false;
}

std::vector<std::string> differences_that_matter(const Recipe& a, const Recipe& b) {
  std::vector<std::string> lines = recipe_differences(a, b);
  std::erase_if(lines, may_differ);
  return lines;
}

using Seeds = std::map<std::uint64_t, const Score*>;

ComparedScore summarise(const std::string& metric, const std::string& group, const Seeds& seeds) {
  std::vector<double> values;
  for (const auto& [seed, score] : seeds) values.push_back(score->value);
  const MeanAndInterval found = student(values);
  ComparedScore row{metric, group, static_cast<std::int64_t>(values.size()), found.mean, found.interval, {}, {}, 0};
  if (values.size() == 1) row.interval = seeds.begin()->second->interval;
  return row;
}

void add_difference(ComparedScore& row, const ComparedScore& first_row, const Seeds& seeds, const Seeds& first, std::vector<std::string>& notes) {
  std::set<std::string> reasons;
  for (const auto& [seed, score] : seeds) {
    for (const std::string& line : differences_that_matter(first.begin()->second->recipe, score->recipe)) reasons.insert(line);
  }
  if (!reasons.empty()) {
    for (const std::string& line : reasons)
      notes.push_back(fmt::format("{} of {} and {} cannot be compared: their recipes differ in {}", row.metric, first_row.group, row.group, line));
    return;
  }
  std::vector<double> differences;
  for (const auto& [seed, score] : seeds) {
    if (const auto found = first.find(seed); found != first.end()) differences.push_back(score->value - found->second->value);
  }
  row.pairs = static_cast<std::int64_t>(differences.size());
  if (row.pairs == 0)
    notes.push_back(fmt::format("{} of {} and {}: no common seed, so the means are compared unpaired", row.metric, first_row.group, row.group));
  const MeanAndInterval paired = student(differences);
  row.difference = row.pairs > 0 ? paired.mean : row.mean - first_row.mean;
  row.difference_interval = paired.interval;
  const Interval* a = row.interval ? &*row.interval : nullptr;
  const Interval* b = first_row.interval ? &*first_row.interval : nullptr;
  if (row.pairs == 1 && seeds.size() + first.size() > 2) {
    const auto [seed, score] = *std::find_if(seeds.begin(), seeds.end(), [&](const auto& each) { return first.contains(each.first); });
    a = score->interval ? &*score->interval : nullptr;
    b = first.at(seed)->interval ? &*first.at(seed)->interval : nullptr;
  }
  if (row.pairs < 2 && a && b) {
    const double half = std::hypot(half_width(*a), half_width(*b));
    row.difference_interval = Interval{*row.difference - half, *row.difference + half};
  }
  if (row.pairs == 1 && row.difference_interval)
    notes.push_back(fmt::format("{} of {} and {}: one seed, so the interval is that of the images alone and not of training again", row.metric,
                                first_row.group, row.group));
}

std::string number(double value) { return fmt::format("{:.4g}", value); }

std::string with_interval(const std::optional<double>& value, const std::optional<Interval>& interval) {
  if (!value) return "-";
  return number(*value) + (interval ? fmt::format(" [{}, {}]", number(interval->low), number(interval->high)) : "");
}

const char* tells_apart(const ComparedScore& row) {
  if (!row.difference_interval) return "-";
  return row.difference_interval->low > 0 || row.difference_interval->high < 0 ? "yes" : "no";
}

std::vector<std::array<std::string, 6>> cells_of(const Comparison& comparison) {
  std::vector<std::array<std::string, 6>> cells = {{"metric", "runs", "seeds", "value [95 %]", "difference [95 %]", "beyond chance"}};
  for (const ComparedScore& row : comparison.rows)
    cells.push_back({row.metric, row.group, std::to_string(row.seeds), with_interval(row.mean, row.interval),
                     with_interval(row.difference, row.difference_interval), tells_apart(row)});
  return cells;
}

std::string as_table(const Comparison& comparison, bool markdown) {
  const auto cells = cells_of(comparison);
  std::array<std::size_t, 6> widths{};
  for (const auto& row : cells)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string text;
  for (std::size_t r = 0; r < cells.size(); ++r) {
    std::string line;
    for (std::size_t c = 0; c < cells[r].size(); ++c)
      line += fmt::format("{}{:<{}} ", markdown ? "| " : "", cells[r][c], widths[c]) + (markdown ? "" : " ");
    if (markdown) line += "|";
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
    if (r > 0 || !markdown) continue;
    for (const std::size_t width : widths) text += fmt::format("|{:->{}}", "", width + 2);
    text += "|\n";
  }
  for (const std::string& note : comparison.notes) text += (markdown ? "\n- " : "note: ") + note + (markdown ? "" : "\n");
  return text + (markdown && !comparison.notes.empty() ? "\n" : "");
}

ordered_json to_json(const std::optional<Interval>& interval) {
  return interval ? ordered_json::array({interval->low, interval->high}) : ordered_json();
}

std::string as_json(const Comparison& comparison) {
  ordered_json rows = ordered_json::array();
  for (const ComparedScore& row : comparison.rows) {
    rows.push_back({{"metric", row.metric},
                    {"runs", row.group},
                    {"seeds", row.seeds},
                    {"mean", row.mean},
                    {"interval", to_json(row.interval)},
                    {"difference", row.difference ? ordered_json(*row.difference) : ordered_json()},
                    {"difference_interval", to_json(row.difference_interval)},
                    {"pairs", row.pairs}});
  }
  return ordered_json{{"scores", rows}, {"notes", comparison.notes}}.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? "\"\"" : std::string(1, c);
  return result + "\"";
}

std::string as_csv(const Comparison& comparison) {
  std::string text = "metric,runs,seeds,mean,low,high,difference,difference_low,difference_high,pairs\n";
  const auto value = [](bool there, double x) { return there ? fmt::format("{:.10g}", x) : std::string(); };
  const auto ends = [&](const std::optional<Interval>& i) { return i ? value(true, i->low) + "," + value(true, i->high) : std::string(","); };
  for (const ComparedScore& row : comparison.rows)
    text += fmt::format("{},{},{},{},{},{},{},{}\n", quoted(row.metric), quoted(row.group), row.seeds, value(true, row.mean), ends(row.interval),
                        value(row.difference.has_value(), row.difference.value_or(0)), ends(row.difference_interval), row.pairs);
  return text;
}

}  // namespace

std::map<std::string, Score> read_scores(const std::filesystem::path& file) {
  std::map<std::string, Score> scores;
  std::int64_t number = 0;
  for_each_json_line(file, [&](const ordered_json& value) {
    ++number;
    try {
      Score score{value.at("metric").get<std::string>(), value.at("value").get<double>(), std::nullopt, value.at("recipe").get<Recipe>()};
      if (value.contains("interval")) score.interval = Interval{value["interval"].at(0).get<double>(), value["interval"].at(1).get<double>()};
      scores[score.metric] = std::move(score);
    } catch (const nlohmann::json::exception&) {
      throw Error(fmt::format("{}:{}: no score, which is an object with metric, value and recipe", file.string(), number));
    }
  });
  return scores;
}

Comparison compare_runs(const std::vector<ScoredRun>& runs) {
  Comparison comparison;
  std::vector<std::string> groups, metrics;
  for (const ScoredRun& run : runs) {
    if (std::find(groups.begin(), groups.end(), run.group) == groups.end()) groups.push_back(run.group);
    for (const auto& [metric, score] : run.scores) {
      if (std::find(metrics.begin(), metrics.end(), metric) == metrics.end()) metrics.push_back(metric);
    }
  }
  for (const std::string& metric : metrics) {
    std::optional<std::size_t> first_row;
    Seeds first;
    for (const std::string& group : groups) {
      Seeds seeds;
      for (const ScoredRun& run : runs) {
        const auto found = run.scores.find(metric);
        if (run.group == group && found != run.scores.end()) seeds[run.seed] = &found->second;
      }
      if (seeds.empty()) {
        comparison.notes.push_back(fmt::format("{} has no {}", group, metric));
        continue;
      }
      ComparedScore row = summarise(metric, group, seeds);
      if (first_row) {
        add_difference(row, comparison.rows[*first_row], seeds, first, comparison.notes);
      } else if (group == groups.front()) {
        first_row = comparison.rows.size();
        first = seeds;
      }
      comparison.rows.push_back(std::move(row));
    }
  }
  return comparison;
}

std::string format_comparison(const Comparison& comparison, const std::string& format) {
  if (format == "text" || format == "markdown") return as_table(comparison, format == "markdown");
  if (format == "json") return as_json(comparison);
  if (format == "csv") return as_csv(comparison);
  throw_unknown_name("format", format, std::vector<std::string>{"text", "markdown", "json", "csv"});
}

}  // namespace uvit
