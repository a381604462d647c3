#include <torch/torch.h>

#include "checkpoint/official.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "core/atomic_file.h"
#include "core/error.h"
#include "io/pth.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

constexpr std::array kFiles = {"nnet.pth", "nnet_ema.pth", "optimizer.pth", "lr_scheduler.pth", "step.pth"};

const PthValue::List& list_of(const PthValue& value, const char* what) {
  if (const auto* list = std::get_if<PthValue::List>(&value.value)) return *list;
  throw Error(fmt::format("'{}' is no list", what));
}

double number_of(const PthValue& value, const char* what) {
  if (const auto* real = std::get_if<double>(&value.value)) return *real;
  if (const auto* integer = std::get_if<std::int64_t>(&value.value)) return static_cast<double>(*integer);
  if (const auto* tensor = std::get_if<HostTensor>(&value.value); tensor && tensor->numel() == 1) return tensor->to_double().front();
  throw Error(fmt::format("'{}' is no number", what));
}

/// The entry under an integer key; null where there is none.
const PthValue* find_index(const PthValue& value, std::int64_t index) {
  const auto* dict = std::get_if<PthValue::Dict>(&value.value);
  if (!dict) throw Error("'state' is no dict");
  for (const auto& [key, item] : *dict)
    if (const auto* number = std::get_if<std::int64_t>(&key.value); number && *number == index) return &item;
  return nullptr;
}

NamedTensors read_network(const fs::path& path, const Config& config) {
  UViT model(make_uvit_options(config));
  load_parameters(model, read_pth_state_dict(path), path.string());
  return named_parameters(model);
}

at::Tensor moment_of(const PthValue& state, const char* name, const at::Tensor& parameter, const std::string& parameter_name) {
  const auto* host = std::get_if<HostTensor>(&state.at(name).value);
  if (!host || host->shape != parameter.sizes().vec())
    throw Error(fmt::format("{} of parameter '{}' does not have its shape {}", name, parameter_name, format_shape(parameter.sizes().vec())));
  return to_torch(*host);
}

/// A rate that the training used and that the configuration must repeat.
void check_rate(double saved, double configured, const char* key) {
  if (std::abs(saved - configured) > 1e-12 * std::max(1.0, std::abs(saved)))
    throw Error(fmt::format("it was trained with {} = {}, and the configuration has {}: set {} to it", key, saved, configured, key));
}

void check_group(const PthValue& group, const OptimizerConfig& config) {
  const PthValue* initial = group.find("initial_lr");  // "lr" is the scheduled one
  check_rate(number_of(initial ? *initial : group.at("lr"), "lr"), config.lr, "optimizer.lr");
  check_rate(number_of(group.at("weight_decay"), "weight_decay"), config.weight_decay, "optimizer.weight_decay");
  check_rate(number_of(group.at("eps"), "eps"), config.eps, "optimizer.eps");
  const PthValue::List& betas = list_of(group.at("betas"), "betas");
  if (betas.size() != 2) throw Error("'betas' are not two numbers");
  check_rate(number_of(betas[0], "betas"), config.betas[0], "optimizer.betas");
  check_rate(number_of(betas[1], "betas"), config.betas[1], "optimizer.betas");
}

/// optimizer.pth numbers the parameters in the order of the network's state dict, which is ours.
NamedTensors read_optimizer(const fs::path& path, const NamedTensors& parameters, const Config& config, std::int64_t step) {
  const PthValue file = read_pth(path);
  try {
    const PthValue::List& groups = list_of(file.at("param_groups"), "param_groups");
    if (groups.size() != 1) throw Error(fmt::format("it has {} groups of parameters where the official code makes one", groups.size()));
    if (list_of(groups[0].at("params"), "params").size() != parameters.size())
      throw Error(fmt::format("it has {} parameters, and the network of the configuration {}", list_of(groups[0].at("params"), "params").size(), parameters.size()));
    check_group(groups[0], config.optimizer);
    const PthValue& states = file.at("state");
    NamedTensors result;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto& [name, parameter] = parameters[i];
      const PthValue* state = find_index(states, static_cast<std::int64_t>(i));
      if (!state && step > 0) throw Error(fmt::format("it has no moments of parameter {} ('{}')", i, name));
      if (state && number_of(state->at("step"), "step") != static_cast<double>(step))
        throw Error(fmt::format("parameter '{}' is at step {}, and step.pth says {}", name, number_of(state->at("step"), "step"), step));
      result.emplace_back("exp_avg." + name, state ? moment_of(*state, "exp_avg", parameter, name) : torch::zeros_like(parameter));
      result.emplace_back("exp_avg_sq." + name, state ? moment_of(*state, "exp_avg_sq", parameter, name) : torch::zeros_like(parameter));
    }
    result.emplace_back("step", torch::tensor(step, torch::kInt64));
    // The official code keeps no loss scale: the one that float16 training begins with, and how many good steps it has had.
    result.emplace_back("loss_scale", torch::tensor({config.train.precision == "fp16" ? 65536.0 : 1.0, 0.0}, torch::kFloat64));
    return result;
  } catch (const Error& error) {
    throw Error(fmt::format("cannot continue from {}: {}", path.string(), error.what()));
  }
}

std::int64_t read_step(const fs::path& folder) {
  const fs::path path = folder / "step.pth";
  const PthValue value = read_pth(path);
  const auto* step = std::get_if<std::int64_t>(&value.value);
  if (!step || *step < 0) throw Error(fmt::format("{} holds no step number", path.string()));
  const fs::path scheduler = folder / "lr_scheduler.pth";
  try {
    const double last = number_of(read_pth(scheduler).at("last_epoch"), "last_epoch");
    if (last != static_cast<double>(*step)) throw Error(fmt::format("the learning rate is at step {}, and step.pth says {}", last, *step));
  } catch (const Error& error) {
    throw Error(fmt::format("cannot continue from {}: {}", scheduler.string(), error.what()));
  }
  return *step;
}

PthValue text(const char* value) { return {std::string(value)}; }
PthValue integer(std::int64_t value) { return {value}; }

void write_network(const fs::path& path, const NamedTensors& parameters) { write_pth_state_dict(path, to_tensor_file(parameters)); }

/// Rate of step `step`, as the official LambdaLR computes it.
double scheduled_rate(const OptimizerConfig& config, std::int64_t step) {
  return config.warmup_steps > 0 ? config.lr * std::min(static_cast<double>(step) / static_cast<double>(config.warmup_steps), 1.0) : config.lr;
}

const at::Tensor& named(const NamedTensors& tensors, const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& item) { return item.first == name; });
  if (found == tensors.end()) throw Error(fmt::format("the checkpoint's optimizer has no '{}'", name));
  return found->second;
}

PthValue optimizer_value(const CheckpointState& state, const CheckpointTensors& tensors) {
  const OptimizerConfig& config = state.config.optimizer;
  HostTensor step{DType::f32, {}, std::vector<std::byte>(sizeof(float))};
  *step.as<float>() = static_cast<float>(state.step);
  PthValue::Dict states;
  PthValue::List parameters;
  for (std::size_t i = 0; i < tensors.model.size(); ++i) {
    const std::string& name = tensors.model[i].first;
    PthValue::Dict one = {{text("step"), {step}},
                          {text("exp_avg"), {to_host(named(tensors.optimizer, "exp_avg." + name))}},
                          {text("exp_avg_sq"), {to_host(named(tensors.optimizer, "exp_avg_sq." + name))}}};
    states.emplace_back(integer(static_cast<std::int64_t>(i)), PthValue{std::move(one)});
    parameters.push_back(integer(static_cast<std::int64_t>(i)));
  }
  PthValue::Dict group = {{text("lr"), {scheduled_rate(config, state.step)}},
                          {text("betas"), {PthValue::List{{config.betas[0]}, {config.betas[1]}}}},
                          {text("eps"), {config.eps}},
                          {text("weight_decay"), {config.weight_decay}},
                          {text("amsgrad"), {false}},
                          {text("maximize"), {false}},
                          {text("foreach"), {}},
                          {text("capturable"), {false}},
                          {text("differentiable"), {false}},
                          {text("fused"), {}},
                          {text("decoupled_weight_decay"), {true}},
                          {text("initial_lr"), {config.lr}},
                          {text("params"), {std::move(parameters)}}};
  return {PthValue::Dict{{text("state"), {std::move(states)}}, {text("param_groups"), {PthValue::List{{std::move(group)}}}}}};
}

PthValue scheduler_value(const CheckpointState& state) {
  const OptimizerConfig& config = state.config.optimizer;
  return {PthValue::Dict{{text("base_lrs"), {PthValue::List{{config.lr}}}},
                         {text("last_epoch"), integer(state.step)},
                         {text("_step_count"), integer(state.step + 1)},
                         {text("_last_lr"), {PthValue::List{{scheduled_rate(config, state.step)}}}},
                         {text("lr_lambdas"), {PthValue::List{{}}}}}};
}

/// The official code knows none of the newer switches: its checkpoints neither have nor take what they add.
void check_official(const Config& config) {
  const ModelConfig& m = config.model;
  const auto refuse = [](const std::string& key, const char* official) {
    throw Error(fmt::format("official checkpoints know nothing of {}: only {} can be converted", key, official));
  };
  if (m.qk_norm) refuse("model.qk_norm", "false");
  if (m.rope) refuse("model.rope", "false");
  if (m.mlp != "gelu") refuse("model.mlp = \"" + m.mlp + "\"", "\"gelu\"");
  if (m.norm != "layer") refuse("model.norm = \"" + m.norm + "\"", "\"layer\"");
  if (m.register_tokens > 0) refuse("model.register_tokens", "0");
  if (m.conditioning != "tokens") refuse("model.conditioning = \"" + m.conditioning + "\"", "\"tokens\"");
  if (m.align_dim > 0) refuse("model.align_dim", "0");
  if (config.optimizer.name != "adamw") refuse("optimizer.name = \"" + config.optimizer.name + "\"", "\"adamw\"");
}

}  // namespace

bool is_official_checkpoint(const fs::path& path) {
  return std::all_of(kFiles.begin(), kFiles.end(), [&](const char* file) { return fs::is_regular_file(path / file); });
}

std::pair<CheckpointState, CheckpointTensors> load_official_checkpoint(const fs::path& folder, const Config& config) {
  for (const char* file : kFiles)
    if (!fs::is_regular_file(folder / file)) throw Error(fmt::format("{} is no official checkpoint: it has no {}", folder.string(), file));
  if (config.train.ema_decay.size() != 1)
    throw Error(fmt::format("{} has one moving average, and train.ema_decay {} rates: give the one it was made with", folder.string(),
                            config.train.ema_decay.size()));
  if (config.train.ema_half_life > 0 || !config.train.ema_power.empty())
    throw Error(fmt::format("{} has one moving average of a constant rate: leave out train.ema_half_life and train.ema_power", folder.string()));
  check_official(config);
  std::pair<CheckpointState, CheckpointTensors> checkpoint;
  auto& [state, tensors] = checkpoint;
  state.step = read_step(folder);
  state.images_seen = state.step * config.train.batch_size;
  state.config = config;
  state.plan = make_uvit_options(config).plan;
  state.threads = config.train.threads > 0 ? config.train.threads : std::max<std::int64_t>(1, std::thread::hardware_concurrency());
  tensors.model = read_network(folder / "nnet.pth", config);
  tensors.ema[ema_profile(config.train.ema_decay.front())] = read_network(folder / "nnet_ema.pth", config);
  tensors.optimizer = read_optimizer(folder / "optimizer.pth", tensors.model, config, state.step);
  return checkpoint;
}

void save_official_checkpoint(const fs::path& folder, const CheckpointState& state, const CheckpointTensors& tensors) {
  if (fs::exists(folder)) throw Error(fmt::format("{} exists already: name another folder", folder.string()));
  if (tensors.ema.empty()) throw Error("the checkpoint has no moving average to write as nnet_ema.pth");
  check_official(state.config);
  const std::string profile = ema_profile(state.config.train.ema_decay.front());
  const auto ema = tensors.ema.find(profile);
  make_directories(folder);
  write_network(folder / "nnet.pth", tensors.model);
  write_network(folder / "nnet_ema.pth", ema == tensors.ema.end() ? tensors.ema.begin()->second : ema->second);
  write_pth(folder / "optimizer.pth", optimizer_value(state, tensors));
  write_pth(folder / "lr_scheduler.pth", scheduler_value(state));
  write_pth(folder / "step.pth", integer(state.step));
}

}  // namespace uvit
