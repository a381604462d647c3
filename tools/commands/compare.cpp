#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "config/keys.h"
#include "core/error.h"
#include "metrics/compare.h"

namespace uvit {
namespace {

struct Arguments {
  std::vector<std::string> runs, metrics;
  std::string format = "text";
};

/// "section.key" -> value of what makes one experiment another: not its seed, its paths, or how it is logged, sampled and scored.
std::map<std::string, std::string> experiment_of(const Config& config) {
  std::map<std::string, std::string> values;
  for (const ConfigKey& key : config_keys()) {
    const std::string name = key.full_name();
    const bool beside = key.section == "sample" || key.section == "eval" || name == "train.seed" || name == "train.threads" || name == "train.device" ||
                        name == "data.path" || name == "data.workers" || name == "data.prefetch" || name.ends_with("_every") ||
                        name == "train.eval_images" || name == "train.keep_checkpoints";
    if (!beside) values[name] = format_field(key, config);
  }
  return values;
}

void run(const Arguments& arguments) {
  std::vector<ScoredRun> runs;
  std::vector<std::pair<std::string, std::map<std::string, std::string>>> groups;  // name of the first run, its experiment
  for (const std::string& folder : arguments.runs) {
    const CheckpointState state = load_state(find_step_folder(folder));
    ScoredRun one{"", state.config.train.seed, read_scores(std::filesystem::path(folder) / "scores.jsonl")};
    if (one.scores.empty()) throw Error(fmt::format("{} has no scores: make them with `uvit evaluate {}`", folder, folder));
    if (!arguments.metrics.empty()) {
      std::erase_if(one.scores, [&](const auto& score) {
        return std::none_of(arguments.metrics.begin(), arguments.metrics.end(), [&](const std::string& start) { return score.first.starts_with(start); });
      });
    }
    const auto experiment = experiment_of(state.config);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& each) { return each.second == experiment; });
    if (group == groups.end()) group = groups.insert(groups.end(), {folder, experiment});
    one.group = group->first;
    const bool twice = std::any_of(runs.begin(), runs.end(), [&](const ScoredRun& other) { return other.group == one.group && other.seed == one.seed; });
    if (twice) throw Error(fmt::format("{} is the same experiment with the same seed {} as a run before it", folder, one.seed));
    runs.push_back(std::move(one));
  }
  Comparison comparison = compare_runs(runs);
  if (comparison.rows.empty()) throw Error("no run has a score of the metrics asked for");
  for (std::size_t i = 1; i < groups.size(); ++i) {
    for (const std::string& line : recipe_differences(groups.front().second, groups[i].second))
      comparison.notes.push_back(fmt::format("{} and {} were trained with {}", groups.front().first, groups[i].first, line));
  }
  fmt::print("{}", format_comparison(comparison, arguments.format));
}

}  // namespace

void add_compare_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("compare", "Scores of runs in one table: means over seeds, differences from the first, 95 % intervals");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("RUN", arguments->runs, "Run folders; those that differ in their seed alone are one row, compared seed by seed")->required();
  command->add_option("--metrics", arguments->metrics, "Only scores whose names begin so, for instance FD,KID")->delimiter(',');
  command->add_option("--format", arguments->format, "text, markdown, json or csv")->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
