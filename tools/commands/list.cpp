#include <torch/torch.h>

#include <fmt/format.h>

#include "attention/attention.h"
#include "commands/commands.h"
#include "core/name_table.h"
#include "data/dataset.h"
#include "diffusion/loss.h"
#include "diffusion/parameterisation.h"
#include "diffusion/schedule.h"
#include "diffusion/time_law.h"
#include "metrics/feature_network.h"
#include "metrics/metric.h"
#include "metrics/resize.h"
#include "samplers/sampler.h"
#include "samplers/time_grid.h"
#include "train/optimizer.h"

namespace uvit {
namespace {

struct Table {
  std::string name, key;
  std::vector<std::pair<std::string, std::string>> rows;
};

template <class Row>
Table table(std::string name, std::string key, std::span<const Row> rows) {
  Table result{std::move(name), std::move(key), {}};
  for (const Row& row : rows) result.rows.emplace_back(row.name, row.description);
  return result;
}

std::vector<Table> all_tables() {
  return {table("attention", "model.attention", attention_kinds()),
          table("schedules", "diffusion.schedule", schedule_table()),
          table("predictions", "diffusion.prediction", parameterisation_table()),
          table("weightings", "diffusion.weighting", weighting_table()),
          table("times", "diffusion.time_sampling", time_sampling_table()),
          table("solvers", "sample.solver", solver_table()),
          table("grids", "sample.time_grid", time_grid_table()),
          table("optimizers", "optimizer.name", optimizer_table()),
          table("datasets", "data.dataset", dataset_table()),
          table("networks", "eval.metric", feature_network_table()),
          table("resizes", "--resize", resize_table()),
          table("metrics", "--metrics", metric_table())};
}

void print(const Table& table) {
  fmt::print("{} ({})\n", table.name, table.key);
  for (const auto& [name, description] : table.rows) fmt::print("  {:<22} {}\n", name, description);
}

}  // namespace

void add_list_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("list", "What can be selected by name: attention kinds, schedules, solvers, optimizers, datasets, feature networks, resizes, metrics");
  auto name = std::make_shared<std::string>();
  command->add_option("TABLE", *name, "One table: attention, schedules, predictions, weightings, times, solvers, grids, optimizers, datasets, networks, resizes or metrics; all without it");
  command->callback([name] {
    const std::vector<Table> tables = all_tables();
    if (!name->empty()) return print(find_row<Table>(tables, "table", *name));
    for (const Table& one : tables) print(one);
  });
}

}  // namespace uvit
