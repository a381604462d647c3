#include <torch/torch.h>

#include "train/training_state.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "checkpoint/stored_weights.h"
#include "core/error.h"
#include "distributed/replicas.h"
#include "train/ema_snapshots.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

NamedTensors initial_parameters(UViT& model, const Config& config, at::Device device) {
  model.initialise(config.train.seed);
  model.to(device);
  model.train();
  return named_parameters(model);
}

std::vector<Ema> make_emas(const TrainConfig& train, const NamedTensors& parameters) {
  std::vector<Ema> emas;
  for (EmaProfile& profile : ema_profiles(train)) {
    if (const double left = start_share(profile, train.steps); left > 0.01)
      spdlog::warn("EMA {}: {:.1f} % of the initial weights are left in it after {} steps; train.ema_half_life and train.ema_power forget them",
                   profile.name, 100 * left, train.steps);
    emas.emplace_back(std::move(profile), parameters);
  }
  return emas;
}

std::vector<std::size_t> make_shares(const Config& config, const NamedTensors& parameters, const ProcessGroup& processes) {
  std::vector<std::int64_t> sizes;
  for (const auto& [name, parameter] : parameters) sizes.push_back(parameter.numel());
  return even_shares(sizes, config.train.shard_optimizer ? processes.size() : 1);
}

NamedTensors share_of(const NamedTensors& parameters, const std::vector<std::size_t>& shares, int rank) {
  const std::size_t r = shares.size() > 2 ? static_cast<std::size_t>(rank) : 0;
  return {parameters.begin() + static_cast<std::ptrdiff_t>(shares[r]), parameters.begin() + static_cast<std::ptrdiff_t>(shares[r + 1])};
}

/// The processes' states after each other as one: what all of them have, as the number of steps, is kept once, behind the rest.
NamedTensors merge_states(const NamedTensors& states) {
  std::map<std::string, int> count;
  for (const auto& [name, tensor] : states) ++count[name];
  NamedTensors merged, common;
  std::set<std::string> kept;
  for (const auto& [name, tensor] : states) {
    if (count[name] == 1)
      merged.emplace_back(name, tensor);
    else if (kept.insert(name).second)
      common.emplace_back(name, tensor);
  }
  merged.insert(merged.end(), common.begin(), common.end());
  return merged;
}

}  // namespace

TrainingState::TrainingState(const Config& config, at::Device device, ProcessGroup& processes)
    : config_(config),
      processes_(processes),
      model_(make_uvit_options(config)),
      parameters_(initial_parameters(model_, config, device)),
      shares_(make_shares(config, parameters_, processes)),
      optimizer_(make_optimizer(config.optimizer, share_of(parameters_, shares_, processes.rank()))),
      emas_(make_emas(config.train, parameters_)),
      loss_scale_(config.train.precision == "fp16"),
      device_update_(is_sharded() ? nullptr : make_device_update(*optimizer_, emas_)),
      loss_sum_(at::zeros({}, at::TensorOptions(device).dtype(at::kDouble))) {
  model_.set_recompute_every(config.train.recompute_every);
}

/// Every process's share of the parameters, to the others.
void TrainingState::share_updates() {
  for (int r = 0; is_sharded() && r < processes_.size(); ++r) {
    std::vector<at::Tensor> values;
    for (const auto& [name, parameter] : share_of(parameters_, shares_, r)) values.push_back(parameter);
    processes_.broadcast(values, r);
  }
}

TrainingState::Update TrainingState::apply_gradients(double lr, bool look) {
  const double max_norm = config_.optimizer.clip_grad_norm;
  Update update;
  if (device_update_) {
    update.grad_norm = device_update_->measure(1 / loss_scale_.value(), max_norm);
  } else {
    loss_scale_.unscale(parameters_);
    update.grad_norm = at::scalar_tensor(clip_gradients(parameters_, max_norm), at::kDouble);
  }
  const bool overflow = (look || !device_update_) && !std::isfinite(update.grad_norm.item<double>());
  update.bad = overflow && !loss_scale_.can_shrink();
  if (update.bad) return update;
  for (Ema& ema : emas_) ema.at_step(step + 1);
  if (!overflow && device_update_) {
    device_update_->apply(lr);
  } else if (!overflow) {
    optimizer_->step(lr);
    share_updates();
    for (Ema& ema : emas_) ema.update(parameters_);
  }
  loss_scale_.update(overflow);
  return update;
}

double TrainingState::mean_loss() const { return loss_count_ > 0 ? loss_sum_.item<double>() / static_cast<double>(loss_count_) : 0; }

void TrainingState::add_loss(const at::Tensor& loss) {
  loss_sum_ += loss;
  ++loss_count_;
}

void TrainingState::reset_loss() {
  loss_sum_.zero_();
  loss_count_ = 0;
}

std::string TrainingState::sampled_name() const { return fmt::format("ema_{}", emas_.front().profile()); }

fs::path TrainingState::save(const fs::path& run, const std::optional<double>& eval_loss, const std::vector<std::string>& class_names,
                             std::int64_t threads) const {
  const CheckpointState state{.step = step,
                              .images_seen = images_seen,
                              .config = config_,
                              .plan = model_.options().plan,
                              .eval_loss = eval_loss.value_or(-1),
                              .class_names = class_names,
                              .threads = threads,
                              .loss_sum = loss_sum_.item<double>(),
                              .loss_count = loss_count_};
  NamedTensors moments = optimizer_->state();
  if (is_sharded()) moments = merge_states(gather_named(processes_, moments));
  CheckpointTensors tensors{.model = parameters_, .ema = {}, .optimizer = std::move(moments)};
  for (const Ema& ema : emas_) tensors.ema[ema.profile()] = ema.parameters();
  tensors.optimizer.emplace_back("loss_scale", loss_scale_.state());
  std::string saved;
  processes_.first_alone([&] {
    saved = save_checkpoint(run, state, tensors).string();
    keep_snapshots(run, saved, config_.train);
  });
  return processes_.broadcast(saved);
}

/// What rank 0 has read, in every process.
void TrainingState::distribute(CheckpointState& state, CheckpointTensors& tensors) {
  if (processes_.alone()) return;
  NamedTensors position{{"step", at::scalar_tensor(state.step, at::kLong)},
                        {"images_seen", at::scalar_tensor(state.images_seen, at::kLong)},
                        {"loss_sum", at::scalar_tensor(state.loss_sum, at::kDouble)},
                        {"loss_count", at::scalar_tensor(state.loss_count, at::kLong)}};
  position = broadcast_named(processes_, position);
  state.step = position[0].second.item<std::int64_t>();
  state.images_seen = position[1].second.item<std::int64_t>();
  state.loss_sum = position[2].second.item<double>();
  state.loss_count = position[3].second.item<std::int64_t>();
  tensors.model = broadcast_named(processes_, tensors.model);
  tensors.optimizer = broadcast_named(processes_, tensors.optimizer);
  for (const Ema& ema : emas_) {
    if (processes_.is_first() && !tensors.ema.contains(ema.profile())) continue;  // load says so
    NamedTensors& average = tensors.ema[ema.profile()];
    average = broadcast_named(processes_, average);
  }
}

void TrainingState::start_from(const fs::path& checkpoint) {
  const torch::NoGradGuard no_grad;
  load_initial_weights(model_, checkpoint);
  for (Ema& ema : emas_) ema.load(parameters_);
}

CheckpointState TrainingState::load(const fs::path& step_folder) {
  CheckpointState state;
  CheckpointTensors tensors;
  processes_.first_alone([&, this] { std::tie(state, tensors) = load_checkpoint(step_folder); });
  distribute(state, tensors);
  load_parameters(model_, to_tensor_file(tensors.model), (step_folder / "model.safetensors").string());
  optimizer_->load(tensors.optimizer);
  loss_scale_.load(tensors.optimizer);
  for (Ema& ema : emas_) {
    const auto saved = tensors.ema.find(ema.profile());
    if (saved == tensors.ema.end()) throw Error(fmt::format("{} has no EMA {}: the run was made without it", step_folder.string(), ema.profile()));
    ema.load(saved->second);
  }
  step = state.step;
  images_seen = state.images_seen;
  loss_sum_.fill_(state.loss_sum);
  loss_count_ = state.loss_count;
  return state;
}

}  // namespace uvit
