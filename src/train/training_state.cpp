#include <torch/torch.h>

#include "train/training_state.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>

#include "core/error.h"
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

}  // namespace

TrainingState::TrainingState(const Config& config, at::Device device)
    : config_(config),
      model_(make_uvit_options(config)),
      parameters_(initial_parameters(model_, config, device)),
      optimizer_(config.optimizer, parameters_),
      emas_(make_emas(config.train, parameters_)),
      loss_scale_(config.train.precision == "fp16"),
      device_update_(make_device_update(optimizer_, emas_)),
      loss_sum_(at::zeros({}, at::TensorOptions(device).dtype(at::kDouble))) {}

TrainingState::Update TrainingState::apply_gradients(double lr, bool look) {
  const double max_norm = config_.optimizer.clip_grad_norm;
  Update update;
  if (device_update_) {
    update.grad_norm = device_update_->measure(1 / loss_scale_.value(), max_norm);
  } else {
    loss_scale_.unscale(parameters_);
    update.grad_norm = at::scalar_tensor(clip_gradients(parameters_, max_norm), at::kDouble);
  }
  const bool overflow = look && !std::isfinite(update.grad_norm.item<double>());
  update.bad = overflow && !loss_scale_.can_shrink();
  if (update.bad) return update;
  for (Ema& ema : emas_) ema.at_step(step + 1);
  if (!overflow && device_update_) {
    device_update_->apply(lr);
  } else if (!overflow) {
    optimizer_.step(lr);
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
  CheckpointTensors tensors{.model = parameters_, .ema = {}, .optimizer = optimizer_.state()};
  for (const Ema& ema : emas_) tensors.ema[ema.profile()] = ema.parameters();
  tensors.optimizer.emplace_back("loss_scale", loss_scale_.state());
  const fs::path saved = save_checkpoint(run, state, tensors);
  keep_snapshots(run, saved, config_.train);
  return saved;
}

CheckpointState TrainingState::load(const fs::path& step_folder) {
  auto [state, tensors] = load_checkpoint(step_folder);
  load_parameters(model_, to_tensor_file(tensors.model), (step_folder / "model.safetensors").string());
  optimizer_.load(tensors.optimizer);
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
