#pragma once
#include <filesystem>
#include <string>

#include "config/config.h"

namespace uvit {

/// Makes RUN, or checks the one there is. Throws Error when it has checkpoints and this is no resume, when there is none to resume from, or when it
/// cannot be written.
void prepare_run_folder(const std::filesystem::path& run, bool resume);

/// Writes RUN/config.toml: every key, with the command's surroundings (versions, commit, device, CPU, threads, date) as a header comment.
void write_run_config(const std::filesystem::path& run, const Config& config, std::int64_t threads);

/// What fixes the numbers of a run must be as it was: model, diffusion, data, optimizer, seed, batch sizes, EMA rates, precision. Length of the
/// run, cadence of logs and checkpoints, device, threads, loader threads, the place of the data, sampling and evaluation may change.
/// Throws Error naming the first key that differs, and both values.
void check_resumable(const Config& saved, const Config& now);

}  // namespace uvit
