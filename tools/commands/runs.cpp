#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands/commands.h"
#include "core/error.h"
#include "core/progress.h"
#include "io/json_field.h"
#include "io/json_lines.h"
#include "train/run_status.h"

namespace uvit {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::vector<Json> read_lines(const fs::path& path) {
  std::vector<Json> lines;
  for_each_json_line(path, [&](const Json& json) {
    if (json.is_object()) lines.push_back(json);
  });
  return lines;
}

/// The lowest distance of the newest kind that the run has scores of: others cannot be compared with it.
std::optional<Json> best_score(const std::vector<Json>& scores) {
  const auto is_distance = [](const Json& score) {
    const std::string metric = value_or<std::string>(score, "metric", "");
    return (metric.starts_with("FD[") || metric.starts_with("FID@")) && score.contains("value") && score["value"].is_number();
  };
  std::optional<Json> best;
  for (auto score = scores.rbegin(); score != scores.rend(); ++score) {
    if (!is_distance(*score) || (best && (*score)["metric"] != (*best)["metric"])) continue;
    if (!best || (*score)["value"] < (*best)["value"]) best = *score;
  }
  return best;
}

/// Seconds since the run last wrote a line of its log, or else its status.
double age(const fs::path& run) {
  fs::file_time_type newest = fs::file_time_type::min();
  for (const char* name : {"metrics.jsonl", "status.json", "config.toml"}) {
    std::error_code missing;
    const fs::file_time_type time = fs::last_write_time(run / name, missing);
    if (!missing) newest = std::max(newest, time);
  }
  return newest == fs::file_time_type::min() ? -1 : std::max(0.0, std::chrono::duration<double>(fs::file_time_type::clock::now() - newest).count());
}

Json describe(const fs::path& run, const RunStatus& status) {
  const std::vector<Json> metrics = read_lines(run / "metrics.jsonl");
  const std::optional<Json> best = best_score(read_lines(run / "scores.jsonl"));
  // A run that still trains wrote its status when it began.
  const std::int64_t step = metrics.empty() ? status.step : std::max(status.step, value_or(metrics.back(), "step", std::int64_t{0}));
  Json json = {{"run", run.string()}, {"state", status.state}, {"step", step}, {"steps", status.steps}};
  json["loss"] = metrics.empty() || !metrics.back().contains("loss") ? Json(nullptr) : metrics.back()["loss"];
  json["best_score"] = best ? Json{{"metric", (*best)["metric"]}, {"value", (*best)["value"]}} : Json(nullptr);
  json["age_seconds"] = age(run);
  if (!status.error.empty()) json["error"] = status.error;
  return json;
}

std::vector<Json> find_runs(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw Error(fmt::format("{} is no folder: name the one that holds the runs", folder.string()));
  std::vector<fs::path> folders = {folder};
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory()) folders.push_back(entry.path());
  std::sort(folders.begin() + 1, folders.end());
  std::vector<Json> runs;
  for (const fs::path& one : folders)
    if (const auto status = read_run_status(one)) runs.push_back(describe(one, *status));
  return runs;
}

void print_table(const std::vector<Json>& runs) {
  std::vector<std::array<std::string, 7>> rows = {{"run", "state", "step", "of", "loss", "best score", "age"}};
  for (const Json& run : runs)
    rows.push_back({run["run"], run["state"], run["step"].dump(), run["steps"].dump(),
                    run["loss"].is_number() ? fmt::format("{:.5f}", run["loss"].get<double>()) : "-",
                    run["best_score"].is_null() ? "-"
                                                : fmt::format("{} = {:.4g}", run["best_score"]["metric"].get<std::string>(), run["best_score"]["value"].get<double>()),
                    format_duration(run["age_seconds"])});
  std::array<std::size_t, 7> widths{};
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) line += fmt::format("{:<{}}  ", row[c], widths[c]);
    fmt::print("{}\n", line.substr(0, line.find_last_not_of(' ') + 1));
  }
}

void run(const std::string& folder, bool json) {
  const std::vector<Json> runs = find_runs(folder);
  if (json) return fmt::print("{}\n", Json(runs).dump(1));
  if (runs.empty()) throw Error(fmt::format("{} holds no run", folder));
  print_table(runs);
  for (const Json& one : runs)
    if (one.contains("error")) fmt::print("{}: {}\n", one["run"].get<std::string>(), one["error"].get<std::string>());
}

}  // namespace

void add_runs_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("runs", "The runs of a folder: state (running, finished, interrupted, killed, failed), step, loss, best score, age");
  auto folder = std::make_shared<std::string>("runs");
  auto json = std::make_shared<bool>(false);
  command->add_option("DIR", *folder, "Folder whose sub-folders are runs, or a run itself");
  command->add_flag("--json", *json, "As JSON, for programs");
  command->callback([folder, json] { run(*folder, *json); });
}

}  // namespace uvit
