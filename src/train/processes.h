#pragma once
#include <c10/core/Device.h>

#include <filesystem>
#include <optional>
#include <set>

#include "config/config.h"
#include "core/file_lock.h"
#include "distributed/process_group.h"

namespace uvit {

/// Throws Error where so many processes cannot share the global batch, or cannot sum its gradients along the tree of one process.
void check_processes(const TrainConfig& train, int processes);

/// The device of train.device that this process works on: of several GPUs of its machine, that of its local rank, which becomes the current one.
c10::Device device_of_process(const TrainConfig& train, const Launch& launch);

/// Sets the threads of an operation to train.threads, or else to this process's share of the machine's cores. @return how many
std::int64_t set_threads_of_process(const TrainConfig& train, const Launch& launch);

/// Makes the run folder, or checks the one there is (prepare_run_folder, in rank 0), where an elastic launcher's first start, which has the command line
/// of those that follow it, may find none. @param lock  gets the folder's lock, in rank 0. @return whether to go on from a checkpoint
bool begin_run(const std::filesystem::path& run, bool resume, ProcessGroup& processes, std::optional<FileLock>& lock);

/// How many different numbers the processes hold together.
std::size_t count_distinct(ProcessGroup& processes, const std::set<std::int64_t>& numbers);

}  // namespace uvit
