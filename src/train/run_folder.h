#pragma once
#include <filesystem>
#include <string>

#include "config/config.h"
#include "core/file_lock.h"

namespace uvit {

struct PreparedRun {
  FileLock lock;         ///< of RUN/lock: held as long as training lasts
  bool has_checkpoints;  ///< to go on from
};

/// Makes RUN, or checks the one there is, and locks it. A run that was begun and has no checkpoint yet, as a machine that goes down early leaves it,
/// begins anew with `resume` too, so that a scheduler can always give it.
/// @param may_begin  with `resume`: a folder in which no run was begun will do too
/// Throws Error when another process trains there, when it has checkpoints and this is no resume, when there is nothing to resume, or when it cannot be
/// written.
PreparedRun prepare_run_folder(const std::filesystem::path& run, bool resume, bool may_begin = false);

/// Writes RUN/config.toml: every key, with the command's surroundings (versions, commit, device, CPU, threads, date) as a header comment.
void write_run_config(const std::filesystem::path& run, const Config& config, std::int64_t threads);

/// What fixes the numbers of a run must be as it was: model, diffusion, data, optimizer, seed, batch sizes, EMA rates, precision. Length of the
/// run, cadence of logs and checkpoints, device, threads, loader threads, the place of the data, sampling and evaluation may change.
/// Says what changed of these. Throws Error naming the keys that differ of the others, and both values.
void check_resumable(const Config& saved, const Config& now);

}  // namespace uvit
