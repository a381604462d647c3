#include <torch/torch.h>

#include "train/training_state.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
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

std::vector<at::Tensor> copies(const NamedTensors& parameters) {
  std::vector<at::Tensor> values;
  for (const auto& [name, parameter] : parameters) values.push_back(parameter.detach().clone());
  return values;
}

/// |after - before| / |before| over all parameters
double change_ratio(const std::vector<at::Tensor>& before, const NamedTensors& after) {
  const torch::NoGradGuard no_grad;
  at::Tensor change = at::zeros({}, before.front().options().dtype(at::kDouble)), size = at::zeros_like(change);
  for (std::size_t i = 0; i < before.size(); ++i) {
    change += (after[i].second - before[i]).square().sum(at::kDouble);
    size += before[i].square().sum(at::kDouble);
  }
  return (change / size).sqrt().item<double>();
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
      fused_update_(is_sharded() ? nullptr : make_fused_update(*optimizer_, emas_)),
      loss_sum_(at::zeros({}, at::TensorOptions(device).dtype(at::kDouble))),
      loss_count_(at::zeros_like(loss_sum_)),
      skipped_(at::zeros_like(loss_sum_)),
      bad_in_a_row_(at::zeros_like(loss_sum_)) {
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

TrainingState::Update TrainingState::apply_gradients(double lr, const at::Tensor& loss, bool look, bool measure_ratio) {
  const double max_norm = config_.optimizer.clip_grad_norm;
  Update update;
  if (fused_update_) {
    // FusedUpdate leaves out a step for its gradients' sake alone: a loss that is not finite makes them so.
    if (!look) parameters_.front().second.mutable_grad().add_(loss * 0);
    update.grad_norm = fused_update_->measure(1 / loss_scale_.value(), max_norm);
  } else {
    look = true;  // the norm is on the CPU already
    loss_scale_.unscale(parameters_);
    update.grad_norm = at::scalar_tensor(clip_gradients(parameters_, max_norm), at::kDouble);
  }
  const bool finite_loss = !look || std::isfinite(loss.item<double>());
  const bool overflow = look && !(finite_loss && std::isfinite(update.grad_norm.item<double>()));
  const bool bad = overflow && !(finite_loss && loss_scale_.can_shrink());
  const std::vector<at::Tensor> before = measure_ratio ? copies(parameters_) : std::vector<at::Tensor>();
  for (Ema& ema : emas_) ema.at_step(step + 1);
  if (!overflow && fused_update_) {
    fused_update_->apply(lr);
  } else if (!overflow) {
    optimizer_->step(lr);
    share_updates();
    for (Ema& ema : emas_) ema.update(parameters_);
  }
  if (!bad) loss_scale_.update(overflow);
  count(loss, update.grad_norm, look, overflow, bad);
  if (measure_ratio) update.ratio = change_ratio(before, parameters_);
  return update;
}

void TrainingState::count(const at::Tensor& loss, const at::Tensor& grad_norm, bool look, bool overflow, bool bad) {
  const at::Tensor finite = loss.isfinite();
  loss_sum_ += at::where(finite, loss, 0.0);
  loss_count_ += finite;
  if (!look) {
    const at::Tensor skipped = grad_norm.isfinite().logical_not().to(at::kDouble);
    skipped_ += skipped;
    bad_in_a_row_.add_(1).mul_(skipped);
    return;
  }
  skipped_ += overflow ? 1 : 0;
  if (bad) bad_in_a_row_ += 1;
  if (!overflow) bad_in_a_row_.zero_();
}

std::optional<double> TrainingState::mean_loss() const {
  const double count = loss_count_.item<double>();
  return count > 0 ? std::optional(loss_sum_.item<double>() / count) : std::nullopt;
}

void TrainingState::reset_loss() {
  loss_sum_.zero_();
  loss_count_.zero_();
}

std::int64_t TrainingState::skipped_steps() const { return static_cast<std::int64_t>(skipped_.item<double>()); }
std::int64_t TrainingState::bad_steps() const { return static_cast<std::int64_t>(bad_in_a_row_.item<double>()); }

std::string TrainingState::sampled_name() const { return fmt::format("ema_{}", emas_.front().profile()); }

fs::path TrainingState::save(const fs::path& run, CheckpointState state) const {
  state.step = step;
  state.images_seen = images_seen;
  state.config = config_;
  state.plan = model_.options().plan;
  state.loss_sum = loss_sum_.item<double>();
  state.loss_count = static_cast<std::int64_t>(loss_count_.item<double>());
  state.skipped_steps = skipped_steps();
  state.bad_steps_in_a_row = bad_steps();
  state.rollbacks = rollbacks;
  NamedTensors moments = optimizer_->state();
  if (is_sharded()) moments = merge_states(gather_named(processes_, moments));
  // So that the file is the same however many processes hold the moments.
  std::sort(moments.begin(), moments.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
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
  std::int64_t* const counts[] = {&state.step, &state.images_seen, &state.loss_count, &state.skipped_steps, &state.bad_steps_in_a_row, &state.rollbacks};
  NamedTensors position{{"loss_sum", at::scalar_tensor(state.loss_sum, at::kDouble)}};
  for (const std::int64_t* count : counts) position.emplace_back("count", at::scalar_tensor(*count, at::kLong));
  position = broadcast_named(processes_, position);
  state.loss_sum = position[0].second.item<double>();
  for (std::size_t i = 0; i < std::size(counts); ++i) *counts[i] = position[i + 1].second.item<std::int64_t>();
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

void TrainingState::restore(CheckpointState& state, CheckpointTensors& tensors, const fs::path& origin) {
  distribute(state, tensors);
  load_parameters(model_, to_tensor_file(tensors.model), (origin / "model.safetensors").string());
  optimizer_->load(tensors.optimizer);
  loss_scale_.load(tensors.optimizer);
  for (Ema& ema : emas_) {
    const auto saved = tensors.ema.find(ema.profile());
    if (saved == tensors.ema.end()) throw Error(fmt::format("{} has no EMA {}: the run was made without it", origin.string(), ema.profile()));
    ema.load(saved->second);
  }
  step = state.step;
  images_seen = state.images_seen;
  rollbacks = state.rollbacks;
  loss_sum_.fill_(state.loss_sum);
  loss_count_.fill_(static_cast<double>(state.loss_count));
  skipped_.fill_(static_cast<double>(state.skipped_steps));
  bad_in_a_row_.fill_(static_cast<double>(state.bad_steps_in_a_row));
}

void TrainingState::roll_back(CheckpointState& state, CheckpointTensors& tensors, const fs::path& origin) {
  const std::int64_t images_gone = images_seen, rollbacks_before = rollbacks;
  const at::Tensor skipped = skipped_.clone();
  restore(state, tensors, origin);
  images_seen = images_gone;
  rollbacks = rollbacks_before + 1;
  skipped_.copy_(skipped);
  bad_in_a_row_.zero_();
}

}  // namespace uvit
