#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "commands/processes.h"
#include "config/config.h"
#include "core/error.h"
#include "train/processes.h"
#include "train/trainer.h"

namespace uvit {
namespace {

struct Arguments {
  std::string config, out, device;
  std::vector<std::string> overrides;
  std::int64_t processes = 1;
  bool resume = false, keys = false;
};

/// runs/<dataset>-<file name without .toml>
std::filesystem::path default_run(const std::string& config_path, const Config& config) {
  return std::filesystem::path("runs") / fmt::format("{}-{}", config.data.dataset, std::filesystem::path(config_path).stem().string());
}

void run(const Arguments& arguments) {
  if (arguments.keys) return fmt::print("{}", describe_keys());
  if (arguments.config.empty()) throw UsageError("CONFIG.toml is missing: uvit train CONFIG.toml (the configs folder has some)");
  TrainRequest request;
  request.config = load_config(arguments.config, arguments.overrides);
  if (!arguments.device.empty()) request.config.train.device = arguments.device;
  request.run = arguments.out.empty() ? default_run(arguments.config, request.config) : std::filesystem::path(arguments.out);
  request.resume = arguments.resume;
  const Launch launch = launch_or_spawn(arguments.processes, [&](int processes) { check_processes(request.config.train, processes); });
  install_signal_handlers();
  const std::unique_ptr<ProcessGroup> processes = join_processes(launch, request.config.train);
  request.processes = processes.get();
  const TrainResult result = train(request);
  processes->barrier();  // rank 0, whose store the others use, ends last
  if (!processes->is_first()) return;
  if (result.interrupted && result.checkpoint.empty()) {
    fmt::print("stopped before the end of the first step: there is nothing to save\n");
    return;
  }
  if (result.interrupted) {
    fmt::print("stopped at step {}; checkpoint {}\ngo on with: uvit train {} --out {} --resume\n", result.step, result.checkpoint.string(), arguments.config,
               request.run.string());
    return;
  }
  if (result.images_per_second == 0) {
    fmt::print("all {} steps were trained before; checkpoint {}\n", result.step, result.checkpoint.string());
    return;
  }
  fmt::print("trained {} steps, loss {:.5f}, {:.1f} images/s; checkpoint {}\n", result.step, result.loss, result.images_per_second, result.checkpoint.string());
}

}  // namespace

void add_train_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train the model that a configuration file describes");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("CONFIG.toml", arguments->config, "Configuration file, for instance configs/fashion_mnist/uvit.toml");
  command->add_option("--set", arguments->overrides, "section.key=value, over what the file says; may be given often")->expected(1)->take_all();
  command->add_option("--out", arguments->out, "Run folder (default: runs/<dataset>-<config>)");
  command->add_option("--device", arguments->device, "cpu or cuda: train.device")->check(CLI::IsMember({"cpu", "cuda"}));
  command->add_option("--processes", arguments->processes, "Processes on this machine that train together, each with an equal share of every batch")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--resume", arguments->resume, "Go on from the newest whole checkpoint of the run folder; a run that was started and has none yet begins (under torchrun: any run)");
  command->add_flag("--help-keys", arguments->keys, "Every key of a configuration file, with its default and meaning");
  command->footer("SIGINT and SIGTERM save a checkpoint within seconds, in the middle of an evaluation or of samples too, and end with exit code 0 and\n"
                  "a line that says how to go on; a second one ends at once. Errors end with 1, a wrong command line with 2.");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
