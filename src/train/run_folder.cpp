#include <torch/torch.h>
#include <torch/version.h>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "core/cpu_info.h"
#include "core/error.h"
#include "core/process_info.h"
#include "core/version.h"
#include "train/run_folder.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

std::string first_line(const fs::path& path) {
  const std::string text = read_file(path);
  return text.substr(0, text.find('\n'));
}

}  // namespace

PreparedRun prepare_run_folder(const fs::path& run, bool resume, bool may_begin) {
  const bool was_begun = fs::exists(run / "lock") || fs::exists(run / "config.toml");
  if (resume && !may_begin && !was_begun && !has_checkpoints(run))
    throw Error(fmt::format("{} has no checkpoint to resume from: start it without --resume", run.string()));
  make_directories(run);
  std::optional<FileLock> lock = FileLock::try_lock(run / "lock");
  if (!lock)
    throw Error(fmt::format("{} is being trained already, by {}: name another folder with --out, or wait for that one", run.string(),
                            first_line(run / "lock")));
  lock->write(fmt::format("process {} on {}\n", ::getpid(), host_name()));
  const bool goes_on = has_checkpoints(run);
  if (!resume && goes_on)
    throw Error(fmt::format("{} already holds a run: continue it with --resume, or name another folder with --out", run.string()));
  if (resume && !goes_on) spdlog::info("{} has no checkpoint yet: training begins at step 0", run.string());
  make_directories(run / "checkpoints");
  make_directories(run / "samples");
  for (const fs::path& folder : {run, run / "samples"}) remove_temporaries(folder);
  return {std::move(*lock), goes_on};
}

void write_run_config(const fs::path& run, const Config& config, std::int64_t threads) {
  const std::time_t now = std::time(nullptr);
  const std::string header = fmt::format(
      "# The resolved configuration of this run.\n# uvit {} ({}), LibTorch {}\n# device {}, {} threads, {}\n# {:%Y-%m-%d %H:%M:%S} UTC\n\n",
      version(), git_commit(), TORCH_VERSION, config.train.device, threads, cpu_description(), fmt::gmtime(now));
  write_file(run / "config.toml", header + to_toml(config));
}

namespace {

/// "section.key" -> value as TOML text. to_toml writes one key a line.
std::map<std::string, std::string> key_values(const Config& config) {
  std::map<std::string, std::string> values;
  std::istringstream lines(to_toml(config));
  std::string section;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t equals = line.find('=');
    if (line.starts_with('[')) {
      section = line.substr(1, line.find(']') - 1);
    } else if (equals != std::string::npos) {
      const std::size_t key_end = line.find_last_not_of(" \t", equals - 1);
      const std::size_t value_begin = line.find_first_not_of(" \t", equals + 1);
      values[section + "." + line.substr(0, key_end + 1)] = value_begin == std::string::npos ? "" : line.substr(value_begin);
    }
  }
  return values;
}

bool may_change(const std::string& key) {
  constexpr std::array<std::string_view, 25> kFree = {
      "train.steps",       "train.device",       "train.threads",          "train.log_every",        "train.eval_every",
      "train.eval_images", "train.sample_every", "train.checkpoint_every", "train.keep_checkpoints", "data.path",
      "data.autoencoder",  "data.text_encoder",  "data.vocabulary",        "data.workers",           "data.prefetch",
      "model.attention_backend", "train.init_from", "train.recompute_every", "train.max_bad_steps", "train.max_rollbacks",
      "train.histogram_every", "train.hash_every", "train.process_timeout_s", "train.shard_optimizer", "data.on_error"};
  return key.starts_with("sample.") || key.starts_with("eval.") || std::find(kFree.begin(), kFree.end(), key) != kFree.end();
}

}  // namespace

void check_resumable(const Config& saved, const Config& now) {
  const auto saved_values = key_values(saved), values = key_values(now);
  std::vector<std::string> changed, refused;
  for (const auto& [key, value] : values) {
    const auto found = saved_values.find(key);
    const std::string was = found == saved_values.end() ? "none" : found->second;
    if (was == value) continue;
    (may_change(key) ? changed : refused).push_back(fmt::format("{} (the run has {}, the configuration {})", key, was, value));
  }
  if (!refused.empty()) throw Error(fmt::format("cannot resume with another {}; start a new run for it", fmt::join(refused, ", ")));
  if (!changed.empty()) spdlog::info("changed since the checkpoint: {}", fmt::join(changed, ", "));
}

}  // namespace uvit
