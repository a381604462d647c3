#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metrics/score.h"

namespace uvit {

/// The newest score of each metric in a scores.jsonl; none where there is no file. Throws Error naming file and line for what is no score.
std::map<std::string, Score> read_scores(const std::filesystem::path& file);

/// One training run: runs of a group differ in their seed alone.
struct ScoredRun {
  std::string group;
  std::uint64_t seed = 0;
  std::map<std::string, Score> scores;
};

/// One metric of one group, and how it differs from the first group.
struct ComparedScore {
  std::string metric, group;
  std::int64_t seeds = 0;            ///< runs
  double mean = 0;                   ///< over them
  std::optional<Interval> interval;  ///< 95 %: Student's over two seeds or more, else that of the one score
  std::optional<double> difference;  ///< from the first group, over the seeds that both have; none where the recipes differ
  std::optional<Interval> difference_interval;  ///< 95 %: Student's of the paired differences, else both intervals' half widths added in squares
  std::int64_t pairs = 0;            ///< seeds that both have
};

struct Comparison {
  std::vector<ComparedScore> rows;  ///< metric by metric, the first group first
  std::vector<std::string> notes;   ///< why a difference is missing or to be read with care, one line each
};

/// Compares each group with that of the first run. Scores are differenced only where their recipes agree in all but the weights, their training step and
/// what is particular to an image set (hashes).
Comparison compare_runs(const std::vector<ScoredRun>& runs);

/// @param format "text", "markdown", "json" or "csv"; Throws Error with the nearest name for another
std::string format_comparison(const Comparison& comparison, const std::string& format);

}  // namespace uvit
