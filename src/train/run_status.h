#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace uvit {

/// RUN/status.json: how the run stands, for `uvit runs`.
struct RunStatus {
  std::string state;  ///< "running", "finished", "interrupted" (by a signal, saved) or "failed"
  std::int64_t step = 0, steps = 0;
  std::string error;  ///< of a failed one
};

/// Throws Error when it cannot be written.
void write_run_status(const std::filesystem::path& run, const RunStatus& status);

/// How a run stands now: what it wrote last; but "killed" where it says that it runs and nobody holds RUN/lock. Empty for a folder that is no run.
/// A run of before there was a status.json is judged by its newest checkpoint.
std::optional<RunStatus> read_run_status(const std::filesystem::path& run);

}  // namespace uvit
