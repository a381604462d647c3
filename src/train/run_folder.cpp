#include <torch/torch.h>
#include <torch/version.h>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "core/cpu_info.h"
#include "core/error.h"
#include "core/version.h"
#include "train/run_folder.h"

namespace uvit {
namespace fs = std::filesystem;

void prepare_run_folder(const fs::path& run, bool resume) {
  if (!resume && has_checkpoints(run))
    throw Error(fmt::format("{} already holds a run: continue it with --resume, or name another folder with --out", run.string()));
  if (resume && !has_checkpoints(run)) throw Error(fmt::format("{} has no checkpoint to resume from: start it without --resume", run.string()));
  make_directories(run / "checkpoints");
  make_directories(run / "samples");
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
  constexpr std::array<std::string_view, 19> kFree = {
      "train.steps",       "train.device",       "train.threads",          "train.log_every",        "train.eval_every",
      "train.eval_images", "train.sample_every", "train.checkpoint_every", "train.keep_checkpoints", "data.path",
      "data.autoencoder",  "data.text_encoder",  "data.vocabulary",        "data.workers",           "data.prefetch",
      "model.attention_backend", "train.shard_optimizer", "train.hash_every",     "train.process_timeout_s"};
  return key.starts_with("sample.") || key.starts_with("eval.") || std::find(kFree.begin(), kFree.end(), key) != kFree.end();
}

}  // namespace

void check_resumable(const Config& saved, const Config& now) {
  const auto saved_values = key_values(saved), values = key_values(now);
  for (const auto& [key, value] : values) {
    const auto was = saved_values.find(key);
    if (may_change(key) || (was != saved_values.end() && was->second == value)) continue;
    throw Error(fmt::format("cannot resume with another {}: the run has {}, and the configuration {}; start a new run for it", key,
                            was == saved_values.end() ? "none" : was->second, value));
  }
}

}  // namespace uvit
