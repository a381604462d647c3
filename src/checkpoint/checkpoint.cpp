#include <torch/torch.h>
#include <torch/version.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/step_files.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/version.h"
#include "io/safetensors.h"

namespace uvit {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr int kFormat = 1;

std::string checksum(const HostTensor& tensor) { return fmt::format("{:08x}", crc32(tensor.data)); }

/// The number N of a folder called step-N; -1 for any other name.
std::int64_t step_number(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return -1;
  std::int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto result = std::from_chars(name.data() + kPrefix.size(), end, step);
  return result.ec == std::errc() && result.ptr == end ? step : -1;
}

/// Step folders of RUN/checkpoints, oldest first.
std::vector<std::pair<std::int64_t, fs::path>> step_folders(const fs::path& checkpoints) {
  std::vector<std::pair<std::int64_t, fs::path>> folders;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    const std::int64_t step = step_number(entry.path().filename().string());
    if (step >= 0 && entry.is_directory(ignored)) folders.emplace_back(step, entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

Json write_tensors(const fs::path& path, const NamedTensors& tensors) {
  TensorFile file = to_tensor_file(tensors);
  file.metadata["format"] = "pt";
  write_safetensors(path, file);
  Json sums = Json::object();
  for (const auto& [name, tensor] : file.tensors) sums[name] = checksum(tensor);
  return sums;
}

Json state_to_json(const CheckpointState& state) {
  Json json;
  json["format"] = kFormat;
  json["step"] = state.step;
  json["images_seen"] = state.images_seen;
  json["eval_loss"] = state.eval_loss < 0 ? Json(nullptr) : Json(state.eval_loss);
  json["loss_since_log"] = {{"sum", state.loss_sum}, {"count", state.loss_count}};
  json["attention_plan"] = state.plan.kinds;
  json["class_names"] = state.class_names;
  json["threads"] = state.threads;
  json["versions"] = {{"uvit", version()}, {"commit", git_commit()}, {"libtorch", TORCH_VERSION}};
  json["config"] = to_toml(state.config);
  return json;
}

CheckpointState state_from_json(const Json& json, const fs::path& path) {
  CheckpointState state;
  state.step = json.at("step").get<std::int64_t>();
  state.images_seen = json.at("images_seen").get<std::int64_t>();
  if (!json.at("eval_loss").is_null()) state.eval_loss = json.at("eval_loss").get<double>();
  state.loss_sum = json.at("loss_since_log").at("sum").get<double>();
  state.loss_count = json.at("loss_since_log").at("count").get<std::int64_t>();
  state.plan.kinds = json.at("attention_plan").get<std::vector<std::string>>();
  state.class_names = json.at("class_names").get<std::vector<std::string>>();
  state.threads = json.at("threads").get<std::int64_t>();
  state.config = parse_config(json.at("config").get<std::string>(), path.string());
  return state;
}

Json read_state_json(const fs::path& step_folder) {
  const fs::path path = step_folder / "state.json";
  if (!fs::is_regular_file(path)) throw Error(fmt::format("{} is not a checkpoint: it has no state.json", step_folder.string()));
  Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) throw Error(fmt::format("{} is damaged: it is not JSON; use another step folder", path.string()));
  if (!json.is_object() || !json.contains("format") || !json["format"].is_number_integer() || !json.contains("checksums"))
    throw Error(fmt::format("{} is no checkpoint of uvit: it has no 'format' and 'checksums'", path.string()));
  if (json["format"] != kFormat)
    throw Error(fmt::format("{} has checkpoint format {}, and this program reads format {}", path.string(), json["format"].dump(), kFormat));
  return json;
}

/// Moves `written` to `target`. A step folder that is there already (an earlier run went further) is set aside until the new one stands.
void replace_folder(const fs::path& written, const fs::path& target) {
  const fs::path aside = target.string() + ".old";
  fs::remove_all(aside);
  if (fs::exists(target)) fs::rename(target, aside);
  fs::rename(written, target);
  sync_path(target.parent_path());
  fs::remove_all(aside);
}

}  // namespace

std::string ema_profile(double rate) { return fmt::format("{}", rate); }

fs::path save_checkpoint(const fs::path& run, const CheckpointState& state, const CheckpointTensors& tensors) {
  const fs::path checkpoints = run / "checkpoints";
  const fs::path target = checkpoints / fmt::format("step-{}", state.step);
  const fs::path temporary = target.string() + ".tmp";
  try {
    make_directories(checkpoints);
    fs::remove_all(temporary);
    make_directories(temporary);
    Json json = state_to_json(state);
    Json& sums = json["checksums"] = Json::object();
    sums["model.safetensors"] = write_tensors(temporary / "model.safetensors", tensors.model);
    for (const auto& [profile, ema] : tensors.ema) {
      const std::string file = fmt::format("ema_{}.safetensors", profile);
      sums[file] = write_tensors(temporary / file, ema);
    }
    sums["optimizer.safetensors"] = write_tensors(temporary / "optimizer.safetensors", tensors.optimizer);
    write_file(temporary / "state.json", json.dump(1) + "\n");
    sync_path(temporary);
    replace_folder(temporary, target);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw Error(fmt::format("cannot save the checkpoint {}: {}", target.string(), error.code().message()));
  } catch (const Error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw Error(fmt::format("cannot save the checkpoint {}: {}", target.string(), error.what()));
  }
  link_checkpoint(run, "latest", target);
  return target;
}

void link_checkpoint(const fs::path& run, const std::string& name, const fs::path& step_folder) {
  const fs::path link = run / "checkpoints" / name;
  const fs::path temporary = run / "checkpoints" / (name + ".tmp");
  try {
    fs::remove(temporary);
    fs::create_directory_symlink(step_folder.filename(), temporary);
    fs::rename(temporary, link);
  } catch (const fs::filesystem_error& error) {
    throw Error(fmt::format("cannot make the link {}: {}", link.string(), error.code().message()));
  }
  sync_path(run / "checkpoints");
}

namespace {

void remove_folder(const fs::path& folder) {
  std::error_code failed;
  fs::remove_all(folder, failed);
  if (failed) throw Error(fmt::format("cannot remove the old checkpoint {}: {}", folder.string(), failed.message()));
}

/// What a crash left of a save: step-N.tmp, step-N.old.
void remove_remains(const fs::path& checkpoints) {
  std::vector<fs::path> remains;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(checkpoints, ignored)) {
    const fs::path ending = entry.path().extension();
    if ((ending == ".tmp" || ending == ".old") && step_number(entry.path().stem().string()) >= 0) remains.push_back(entry.path());
  }
  for (const fs::path& folder : remains) remove_folder(folder);
}

}  // namespace

void prune_checkpoints(const fs::path& run, std::int64_t keep) {
  const fs::path checkpoints = run / "checkpoints";
  remove_remains(checkpoints);
  if (keep <= 0) return;
  std::set<std::string> spared;
  for (const char* name : {"latest", "best", "best_score"}) {
    std::error_code no_link;
    spared.insert(fs::read_symlink(checkpoints / name, no_link).filename().string());
  }
  auto folders = step_folders(checkpoints);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < folders.size(); ++i) {
    const fs::path& folder = folders[i].second;
    if (!spared.contains(folder.filename().string())) remove_folder(folder);
  }
}

bool has_checkpoints(const fs::path& run) { return !step_folders(run / "checkpoints").empty(); }

fs::path find_step_folder(const fs::path& path) {
  if (!fs::exists(path)) throw Error(fmt::format("no such checkpoint: {}", path.string()));
  if (fs::is_regular_file(path / "state.json")) return fs::canonical(path);  // through latest or best to the step folder
  const fs::path checkpoints = path / "checkpoints";
  if (fs::is_regular_file(checkpoints / "latest" / "state.json")) return fs::canonical(checkpoints / "latest");
  // The link is written after the folder: without it the newest folder is the one to take.
  const auto folders = step_folders(checkpoints);
  if (folders.empty())
    throw Error(fmt::format("{} holds no checkpoint: name a run folder, a step folder (one with state.json) or a weight file", path.string()));
  return folders.back().second;
}

fs::path run_of(const fs::path& path) {
  for (fs::path folder = path; folder.has_parent_path() && folder != folder.parent_path(); folder = folder.parent_path())
    if (folder.parent_path().filename() == "checkpoints") return folder.parent_path().parent_path();
  return {};
}

CheckpointState load_state(const fs::path& step_folder) {
  const fs::path path = step_folder / "state.json";
  const Json json = read_state_json(step_folder);
  try {
    return state_from_json(json, path);
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{} is damaged: {}", path.string(), error.what()));
  }
}

std::vector<std::string> checkpoint_files(const fs::path& step_folder) {
  std::vector<std::string> files;
  const Json json = read_state_json(step_folder);
  for (const auto& [file, sums] : json["checksums"].items()) files.push_back(file);
  return files;
}

TensorFile read_verified(const fs::path& step_folder, const std::string& file) {
  const fs::path path = step_folder / file;
  const Json json = read_state_json(step_folder);
  const Json& all = json["checksums"];
  if (!all.is_object() || !all.contains(file) || !all[file].is_object())
    throw Error(fmt::format("{} does not list {}: the checkpoint has no such weights", (step_folder / "state.json").string(), file));
  const Json& sums = all[file];
  const auto damaged = [&](const std::string& what) { return Error(fmt::format("{}: {}; use another step folder", path.string(), what)); };
  if (!fs::is_regular_file(path)) throw damaged("the file is missing, the checkpoint is damaged");
  TensorFile tensors = read_safetensors(path);
  for (const auto& [name, sum] : sums.items())
    if (!tensors.find(name)) throw damaged(fmt::format("tensor '{}', which state.json lists, is missing: the checkpoint is damaged", name));
  for (const auto& [name, tensor] : tensors.tensors) {
    if (!sums.contains(name)) throw damaged(fmt::format("state.json does not list tensor '{}': the checkpoint is damaged", name));
    if (sums[name] != checksum(tensor))
      throw damaged(fmt::format("tensor '{}' is damaged (checksum {}, expected {})", name, checksum(tensor), sums[name].dump()));
  }
  return tensors;
}

namespace {

NamedTensors read_named(const fs::path& step_folder, const std::string& file) {
  NamedTensors named;
  for (auto& [name, tensor] : read_verified(step_folder, file).tensors) named.emplace_back(name, to_torch(tensor));
  return named;
}

}  // namespace

std::pair<CheckpointState, CheckpointTensors> load_checkpoint(const fs::path& step_folder) {
  constexpr std::string_view kEma = "ema_", kSuffix = ".safetensors";
  std::pair<CheckpointState, CheckpointTensors> checkpoint;
  auto& [state, tensors] = checkpoint;
  state = load_state(step_folder);
  tensors.model = read_named(step_folder, "model.safetensors");
  tensors.optimizer = read_named(step_folder, "optimizer.safetensors");
  for (const std::string& file : checkpoint_files(step_folder))
    if (file.starts_with(kEma) && file.ends_with(kSuffix))
      tensors.ema[file.substr(kEma.size(), file.size() - kEma.size() - kSuffix.size())] = read_named(step_folder, file);
  return checkpoint;
}

}  // namespace uvit
