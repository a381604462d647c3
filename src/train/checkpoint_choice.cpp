#include <torch/torch.h>

#include "train/checkpoint_choice.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <tuple>

#include "core/error.h"

namespace uvit {
namespace fs = std::filesystem;

fs::path read_newest_sound(const fs::path& run, CheckpointState& state, CheckpointTensors& tensors) {
  const std::vector<fs::path> folders = resumable_checkpoints(run);
  std::string problem;
  for (const fs::path& folder : folders) {
    try {
      std::tie(state, tensors) = load_checkpoint(folder);
      return folder;
    } catch (const Error& error) {
      problem = error.what();
      spdlog::warn("{} cannot be used: {}", folder.string(), problem);
    }
  }
  throw Error(folders.empty() ? fmt::format("{} holds no checkpoint", run.string())
                              : fmt::format("no checkpoint of {} is whole ({} tried); the oldest: {}", run.string(), folders.size(), problem));
}

namespace {

bool is_finite(const NamedTensors& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const auto& named) { return at::isfinite(named.second).all().template item<bool>(); });
}

bool is_of_cadence(const Config& config, std::int64_t step) {
  return step % config.train.checkpoint_every == 0 || (config.eval.every_steps > 0 && step % config.eval.every_steps == 0);
}

}  // namespace

fs::path read_last_good(const fs::path& run, const Config& config, std::int64_t last_good_step, CheckpointState& state, CheckpointTensors& tensors) {
  const std::vector<fs::path> folders = resumable_checkpoints(run);
  for (const bool of_cadence : {true, false}) {
    for (const fs::path& folder : folders) {
      try {
        const CheckpointState found = load_state(folder);
        const bool suspect = found.bad_steps_in_a_row > 0 || (found.rolled_back_to && found.step >= last_good_step);
        if (suspect || is_of_cadence(config, found.step) != of_cadence) continue;
        std::tie(state, tensors) = load_checkpoint(folder);
        if (is_finite(tensors.model)) return folder;
      } catch (const Error& error) {
        spdlog::warn("{} cannot be used: {}", folder.string(), error.what());
      }
    }
  }
  return {};
}

std::optional<std::pair<fs::path, double>> best_checkpoint(const fs::path& run) {
  std::optional<std::pair<fs::path, double>> best;
  std::vector<fs::path> folders = resumable_checkpoints(run);
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) {  // oldest first: of equal ones the first is the best
    try {
      const double loss = load_state(*folder).eval_loss;
      if (loss >= 0 && (!best || loss < best->second)) best = {*folder, loss};
    } catch (const Error&) {
      continue;  // damaged: whoever wants to load it is told
    }
  }
  return best;
}

}  // namespace uvit
