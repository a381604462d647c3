#include <torch/torch.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "core/error.h"
#include "io/safetensors.h"
#include "train/ema_snapshots.h"

namespace uvit {
namespace {

struct Arguments {
  std::string run, out;
  double length = 0;
  std::optional<std::int64_t> step;
};

constexpr double kHopeless = 0.5;  // share of the wanted average outside what the snapshots span, from which on the result is none of it

void run(const Arguments& arguments) {
  const std::filesystem::path step_folder = find_step_folder(arguments.run);
  const std::filesystem::path folder = run_of(step_folder);
  const std::vector<EmaSnapshot> snapshots = find_snapshots(folder);
  if (snapshots.empty()) throw Error(fmt::format("{} has no EMA snapshots: train with train.ema_power = [0.05, 0.1]", arguments.run));
  std::set<std::int64_t> steps;
  for (const EmaSnapshot& snapshot : snapshots) steps.insert(snapshot.step);
  const std::int64_t step = arguments.step ? *arguments.step : *steps.rbegin();
  const Reconstruction plan = plan_reconstruction(snapshots, step, arguments.length);
  if (step > *steps.rbegin() || plan.residual > kHopeless)
    throw Error(fmt::format("{}: an average of length {} that ends at step {} cannot be made of these snapshots; there are some of steps {}: take one of those, "
                            "or another length",
                            arguments.run, arguments.length, step, fmt::join(steps, ", ")));
  TensorFile file = to_tensor_file(reconstruct(snapshots, plan));
  file.metadata = {{"format", "pt"},
                   {"step", std::to_string(step)},
                   {"weights", fmt::format("ema_power_{} (reconstructed)", arguments.length)},
                   {"config", to_toml(load_state(step_folder).config)}};
  write_safetensors(arguments.out, file);
  const auto used = std::count_if(plan.weights.begin(), plan.weights.end(), [](double weight) { return weight != 0; });
  fmt::print("{}: EMA of relative length {} at step {}, from {} snapshots; {:.2g} of its profile is not in their span\n", arguments.out,
             arguments.length, step, used, plan.residual);
  if (plan.residual > 0.1)
    spdlog::warn("the snapshots cannot make this average: take a step that has one (--step), a length below 0.2, or more checkpoints in training");
  fmt::print("draw from it with: uvit sample {} --config {}/config.toml\n", arguments.out, folder.string());
}

}  // namespace

void add_ema_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("ema", "Weights of any EMA length, made after training from the snapshots of train.ema_power");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("RUN", arguments->run, "Run folder")->required();
  command->add_option("--length", arguments->length, "Standard deviation of the average, as a share of the training")->required();
  command->add_option("--step", arguments->step, "Step at which it ends (default: that of the last snapshot)")->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  command->add_option("-o,--out", arguments->out, "The .safetensors file to write")->required();
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
