#pragma once
#include <functional>
#include <memory>

#include "config/config.h"
#include "distributed/process_group.h"

namespace uvit {

/// The launch that this process belongs to. Where --processes asks for several and no launcher started this one, it starts them, waits for their end, and
/// leaves by throwing CLI::RuntimeError with the program's exit code. Throws UsageError where --processes and another launcher meet.
/// @param check  called with the number of processes before any is started
Launch launch_or_spawn(std::int64_t processes, const std::function<void(int processes)>& check = {});

/// Meets the other processes of the launch. Only rank 0 speaks from here on; the others' warnings and news are silent.
std::unique_ptr<ProcessGroup> join_processes(const Launch& launch, const TrainConfig& train);

}  // namespace uvit
