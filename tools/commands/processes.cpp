#include <torch/torch.h>

#include "commands/processes.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "distributed/spawn.h"
#include "train/processes.h"

namespace uvit {

Launch launch_or_spawn(std::int64_t processes, const std::function<void(int processes)>& check) {
  Launch launch = read_launch(process_environment());
  if (launch.launcher == "--processes" || processes == 1) return launch;
  if (!launch.launcher.empty())
    throw UsageError(fmt::format("--processes {}: {} has started {} processes already; leave it out", processes, launch.launcher, launch.world));
  if (check) check(static_cast<int>(processes));
  throw CLI::RuntimeError(run_processes(static_cast<int>(processes)));
}

std::unique_ptr<ProcessGroup> join_processes(const Launch& launch, const TrainConfig& train) {
  if (launch.rank != 0) spdlog::set_level(spdlog::level::err);
  const c10::Device device = device_of_process(train, launch);  // NCCL works on the current GPU
  return std::make_unique<ProcessGroup>(launch, train.process_timeout_s, !device.is_cpu());
}

}  // namespace uvit
