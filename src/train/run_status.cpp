#include <torch/torch.h>

#include "train/run_status.h"

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/file_lock.h"
#include "io/json_field.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// Step and length that the newest checkpoint tells of.
RunStatus from_checkpoint(const fs::path& run) {
  if (!has_checkpoints(run)) return {.state = "interrupted", .error = {}};
  try {
    const CheckpointState state = load_state(find_step_folder(run));
    return {.state = state.step >= state.config.train.steps ? "finished" : "interrupted", .step = state.step, .steps = state.config.train.steps, .error = {}};
  } catch (const Error& error) {
    return {.state = "failed", .error = error.what()};
  }
}

}  // namespace

void write_run_status(const fs::path& run, const RunStatus& status) {
  nlohmann::ordered_json json = {{"state", status.state}, {"step", status.step}, {"steps", status.steps}};
  if (!status.error.empty()) json["error"] = status.error;
  write_file(run / "status.json", json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

std::optional<RunStatus> read_run_status(const fs::path& run) {
  const fs::path file = run / "status.json";
  const bool begun = fs::exists(run / "config.toml") || fs::is_directory(run / "checkpoints");
  if (!fs::exists(file)) return begun ? std::optional(from_checkpoint(run)) : std::nullopt;
  const auto json = nlohmann::json::parse(read_file(file), nullptr, false);
  if (!json.is_object()) return from_checkpoint(run);
  RunStatus status{.state = value_or<std::string>(json, "state", "failed"), .step = value_or(json, "step", std::int64_t{0}),
                   .steps = value_or(json, "steps", std::int64_t{0}), .error = value_or<std::string>(json, "error", "")};
  const bool held = is_locked(run / "lock");
  if (held) status.state = "running";
  if (!held && status.state == "running") status.state = "killed";
  return status;
}

}  // namespace uvit
