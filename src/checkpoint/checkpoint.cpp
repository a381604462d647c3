#include <torch/torch.h>
#include <torch/version.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/step_files.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/version.h"
#include "io/json_field.h"
#include "io/safetensors.h"

namespace uvit {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr int kFormat = 1;

std::string checksum(const HostTensor& tensor) { return fmt::format("{:08x}", crc32(tensor.data)); }

Json write_tensors(const fs::path& path, const NamedTensors& tensors) {
  TensorFile file = to_tensor_file(tensors);
  file.metadata["format"] = "pt";
  write_safetensors(path, file);
  Json sums = Json::object();
  for (const auto& [name, tensor] : file.tensors) sums[name] = checksum(tensor);
  return sums;
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::optional<double> number_at(const Json& json, const char* key) {
  const Json& value = json.at(key);
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

Json unfinished_to_json(const UnfinishedStep& step) {
  return {{"lr", step.lr},
          {"loss", number_or_null(step.loss)},
          {"grad_norm", number_or_null(step.grad_norm)},
          {"update_ratio", number_or_null(step.update_ratio)},
          {"max_attention_score", number_or_null(step.max_attention_score)},
          {"align_loss", number_or_null(step.align_loss)}};
}

Json state_to_json(const CheckpointState& state) {
  Json json;
  json["format"] = kFormat;
  json["step"] = state.step;
  json["images_seen"] = state.images_seen;
  json["eval_loss"] = state.eval_loss < 0 ? Json(nullptr) : Json(state.eval_loss);
  json["loss_since_log"] = {{"sum", state.loss_sum}, {"count", state.loss_count}};
  json["skipped_steps"] = state.skipped_steps;
  json["bad_steps_in_a_row"] = state.bad_steps_in_a_row;
  json["rollbacks"] = state.rollbacks;
  json["rolled_back_to"] = state.rolled_back_to;
  if (state.unfinished) json["unfinished_step"] = unfinished_to_json(*state.unfinished);
  json["attention_plan"] = state.plan.kinds;
  json["class_names"] = state.class_names;
  json["threads"] = state.threads;
  json["versions"] = {{"uvit", version()}, {"commit", git_commit()}, {"libtorch", TORCH_VERSION}};
  json["config"] = to_toml(state.config);
  return json;
}

CheckpointState state_from_json(const Json& json, const fs::path& path) {
  CheckpointState state;
  state.step = integer_at(json, "step");
  state.images_seen = integer_at(json, "images_seen");
  if (!json.at("eval_loss").is_null()) state.eval_loss = json.at("eval_loss").get<double>();
  state.loss_sum = json.at("loss_since_log").at("sum").get<double>();
  state.loss_count = integer_at(json.at("loss_since_log"), "count");
  state.skipped_steps = value_or(json, "skipped_steps", state.skipped_steps);
  state.bad_steps_in_a_row = value_or(json, "bad_steps_in_a_row", state.bad_steps_in_a_row);
  state.rollbacks = value_or(json, "rollbacks", state.rollbacks);
  state.rolled_back_to = json.value("rolled_back_to", state.rolled_back_to);
  if (json.contains("unfinished_step")) {
    const Json& step = json["unfinished_step"];
    state.unfinished = UnfinishedStep{.lr = step.at("lr").get<double>(),
                                      .loss = number_at(step, "loss"),
                                      .grad_norm = number_at(step, "grad_norm"),
                                      .update_ratio = number_at(step, "update_ratio"),
                                      .max_attention_score = number_at(step, "max_attention_score"),
                                      .align_loss = number_at(step, "align_loss")};
  }
  state.plan.kinds = json.at("attention_plan").get<std::vector<std::string>>();
  state.class_names = json.at("class_names").get<std::vector<std::string>>();
  state.threads = integer_at(json, "threads");
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
