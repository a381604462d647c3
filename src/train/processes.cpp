#include <torch/torch.h>

#include "train/processes.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <bit>
#include <sstream>
#include <thread>

#include "attention/device.h"
#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "train/run_folder.h"

namespace uvit {

void check_processes(const TrainConfig& train, int processes) {
  if (train.batch_size % processes != 0)
    throw Error(fmt::format("train.batch_size = {} cannot be shared equally by {} processes: take a multiple of {}, or other processes", train.batch_size,
                            processes, processes));
  if (!train.reproducible_reduction) return;
  const std::int64_t share = train.batch_size / processes;
  if (!std::has_single_bit(static_cast<unsigned>(processes)))
    throw Error(fmt::format("train.reproducible_reduction works with 1, 2, 4, 8, ... processes, not with {}", processes));
  if (train.micro_batch_size == 0 ? processes > 1 : share % train.micro_batch_size != 0)
    throw Error(fmt::format("train.reproducible_reduction with {} processes: set train.micro_batch_size to a divisor of the {} images that each takes of a "
                            "batch, the same one for every number of processes",
                            processes, share));
  if (train.device == "cpu" && train.threads == 0)
    throw Error("train.reproducible_reduction: set train.threads to the same number for every number of processes; the last bits of a product hang on it");
}

c10::Device device_of_process(const TrainConfig& train, const Launch& launch) {
  const c10::Device device = select_device(train.device);
  if (device.is_cpu() || launch.alone()) return device;
  const c10::impl::VirtualGuardImpl guard(device.type());
  if (launch.local_world > guard.deviceCount())
    throw Error(fmt::format("{} processes on a machine with {} GPUs: start one a GPU, or set train.device = \"cpu\"", launch.local_world,
                            static_cast<int>(guard.deviceCount())));
  const c10::Device own(device.type(), static_cast<c10::DeviceIndex>(launch.local_rank));
  guard.setDevice(own);
  return own;
}

std::int64_t set_threads_of_process(const TrainConfig& train, const Launch& launch) {
  const std::int64_t cores = std::thread::hardware_concurrency();
  const std::int64_t threads = train.threads > 0 ? train.threads : std::max<std::int64_t>(1, cores / launch.local_world);
  at::set_num_threads(static_cast<int>(threads));
  return threads;
}

bool begin_run(const std::filesystem::path& run, bool resume, ProcessGroup& processes, std::optional<FileLock>& lock) {
  std::string goes_on;
  if (processes.is_first()) {
    PreparedRun prepared = prepare_run_folder(run, resume, processes.launch().elastic());
    lock.emplace(std::move(prepared.lock));
    goes_on = prepared.has_checkpoints ? "yes" : "no";
  }
  return processes.broadcast(goes_on) == "yes";
}

std::size_t count_distinct(ProcessGroup& processes, const std::set<std::int64_t>& numbers) {
  std::set<std::int64_t> all;
  for (const std::string& list : processes.all_gather(fmt::format("{}", fmt::join(numbers, " ")))) {
    std::istringstream words(list);
    for (std::int64_t number; words >> number;) all.insert(number);
  }
  return all.size();
}

}  // namespace uvit
