#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "core/error.h"
#include "io/json_field.h"
#include "io/json_lines.h"

namespace uvit {
namespace {

using json = nlohmann::ordered_json;

std::vector<json> read_json_lines(const std::filesystem::path& path) {
  std::vector<json> lines;
  for_each_json_line(path, [&](const json& line) {
    if (!line.is_object()) throw Error(fmt::format("{}:{}: not a JSON object", path.string(), lines.size() + 1));
    lines.push_back(line);
  });
  return lines;
}

/// The newest score whose metric starts with one of `prefixes`; floors and extrapolations are scores of their own.
const json* newest(const std::vector<json>& scores, const std::vector<std::string>& prefixes) {
  const auto found = std::find_if(scores.rbegin(), scores.rend(), [&](const json& score) {
    const std::string metric = value_or<std::string>(score, "metric", "");
    const bool beside = metric.find(" floor@") != std::string::npos || metric.find(" infinity@") != std::string::npos;
    return !beside && std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) { return metric.starts_with(prefix); });
  });
  return found == scores.rend() ? nullptr : &*found;
}

double median_rate(const std::vector<json>& metrics) {
  std::vector<double> rates;
  for (const json& line : metrics)
    if (line.contains("images_per_second")) rates.push_back(line["images_per_second"]);
  if (rates.empty()) return 0;
  std::nth_element(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2), rates.end());
  return rates[rates.size() / 2];
}

/// "U-ViT (softmax)" or "U-ViC (cog in 3 of 5 blocks)"
std::string describe_model(const AttentionPlan& plan) {
  const auto other = std::find_if(plan.kinds.begin(), plan.kinds.end(), [](const std::string& kind) { return kind != "softmax"; });
  if (other == plan.kinds.end()) return "U-ViT (softmax)";
  const auto count = std::count(plan.kinds.begin(), plan.kinds.end(), *other);
  return fmt::format("{} ({} in {} of {} blocks)", *other == "cog" ? "U-ViC" : "U-ViT", *other, count, plan.kinds.size());
}

void run(const std::vector<std::string>& runs) {
  std::vector<std::array<std::string, 5>> rows = {{"model", "steps", "images/s", "score", "class agreement"}};
  std::vector<std::string> recipes;
  for (const std::string& folder : runs) {
    const CheckpointState state = load_state(find_step_folder(folder));
    const std::vector<json> scores = read_json_lines(std::filesystem::path(folder) / "scores.jsonl");
    const json* distance = newest(scores, {"FD[", "FID@"});
    const json* agreement = newest(scores, {"class agreement["});
    rows.push_back({describe_model(state.plan), std::to_string(state.step),
                    fmt::format("{:.0f}", median_rate(read_json_lines(std::filesystem::path(folder) / "metrics.jsonl"))),
                    distance ? fmt::format("{} = {:.2f}", distance->at("metric").get<std::string>(), distance->at("value").get<double>()) : "-",
                    agreement ? fmt::format("{:.1f} % of {}", 100 * agreement->at("value").get<double>(),
                                            agreement->at("metric").get<std::string>().substr(agreement->at("metric").get<std::string>().find('@') + 1))
                              : "-"});
    if (!distance) continue;
    std::string recipe;
    for (const auto& [key, value] : distance->at("recipe").items()) recipe += fmt::format("{}{} {}", recipe.empty() ? "" : ", ", key, value.get<std::string>());
    recipes.push_back(fmt::format("{}: {}", folder, recipe));
  }
  std::array<std::size_t, 5> widths{};
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < rows[r].size(); ++c) fmt::print("| {:<{}} ", rows[r][c], widths[c]);
    fmt::print("|\n");
    if (r > 0) continue;
    for (std::size_t width : widths) fmt::print("|{}", std::string(width + 2, '-'));
    fmt::print("|\n");
  }
  for (const std::string& recipe : recipes) fmt::print("recipe of {}\n", recipe);
}

}  // namespace

void add_report_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("report", "A table of runs: model, steps, images/s, newest score with its recipe, class agreement");
  auto runs = std::make_shared<std::vector<std::string>>();
  command->add_option("RUN", *runs, "Run folders")->required();
  command->callback([runs] { run(*runs); });
}

}  // namespace uvit
