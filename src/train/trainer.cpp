#include <torch/torch.h>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <optional>
#include <thread>

#include "attention/device.h"
#include "attention/plan.h"
#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "diffusion/loss.h"
#include "train/adamw.h"
#include "train/device_batches.h"
#include "train/device_update.h"
#include "train/ema.h"
#include "train/ema_snapshots.h"
#include "train/evaluation.h"
#include "train/interrupt.h"
#include "train/loss_scale.h"
#include "train/metrics_log.h"
#include "train/preview.h"
#include "train/run_folder.h"
#include "train/trainer.h"
#include "train/training_batch.h"
#include "train/training_score.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

std::int64_t set_threads(const TrainConfig& train) {
  const std::int64_t threads = train.threads > 0 ? train.threads : std::max<std::int64_t>(1, std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(threads));
  return threads;
}

/// What the configuration asks for and training cannot do, found before the first step.
void check_trainable(const Config& config) {
  validate(config);
  const bool conditional = config.data.num_classes > 0 || config.model.context_dim > 0;
  if (config.train.sample_every > 0 && config.sample.guidance_scale != 1.0 && (!conditional || config.diffusion.label_dropout == 0))
    throw Error("sample.guidance_scale is not 1, but training is without label dropout: set diffusion.label_dropout, or sample.guidance_scale = 1");
}

/// What the dataset must have for the model that is asked for, and the preview for the dataset.
void check_data(const Config& config, const Dataset& dataset) {
  const ModelConfig& model = config.model;
  if (model.context_dim > 0 && (dataset.context_tokens() != model.context_tokens || dataset.context_dim() != model.context_dim))
    throw Error(dataset.context_tokens() == 0
                    ? fmt::format("model.context_dim = {}, but {} has no captions: add them with `uvit encode-text`, or set it to 0", model.context_dim,
                                  config.data.path)
                    : fmt::format("the captions of {} are {} tokens of width {}: set model.context_tokens and model.context_dim to that", config.data.path,
                                  dataset.context_tokens(), dataset.context_dim()));
  if (dataset.latent() && config.train.sample_every > 0 && config.data.autoencoder.empty())
    throw Error("sample grids of latents need data.autoencoder: name it, or set train.sample_every = 0");
}

bool is_due(std::int64_t every, std::int64_t step) { return every > 0 && step % every == 0; }

class Trainer {
 public:
  explicit Trainer(const TrainRequest& request);
  TrainResult run();

 private:
  struct Step {
    at::Tensor loss, grad_norm;  // 0-dim float64, on the device: reading one waits for a GPU
    double lr = 0;
  };

  Step train_step(const TrainingBatch& batch);
  at::Tensor forward_backward(const TrainingBatch& batch);
  at::Tensor update(double lr);
  double read_loss_sum() const;
  double evaluate();
  void log(const Step& step, double images_per_second, double data_wait, const std::optional<double>& eval_loss);
  void preview();
  void score();
  void save(const std::optional<double>& eval_loss);
  void resume();
  [[noreturn]] void stop_not_finite(const std::string& what, std::int64_t step) const;

  const Config config_;
  const fs::path run_;
  const at::Device device_;
  /// Every step's loss and gradient norm are looked at before the next: on the CPU, and where a loss scale hangs on them. Else the GPU is kept busy:
  /// a step whose gradients are not finite changes nothing, and the next line of the log finds out.
  const bool looks_at_every_step_;
  const std::int64_t threads_;
  const std::unique_ptr<Schedule> schedule_;
  const Parameterisation& parameterisation_;
  const std::unique_ptr<Dataset> dataset_;
  std::optional<HeldOut> held_out_;
  std::optional<TrainingScore> training_score_;
  UViT model_;
  NamedTensors parameters_;
  AdamW optimizer_;
  std::vector<Ema> emas_;
  LossScale loss_scale_;
  std::unique_ptr<DeviceUpdate> device_update_;

  std::int64_t step_ = 0, images_seen_ = 0;
  at::Tensor loss_sum_;  // since the last line of the log, as Step::loss
  std::int64_t loss_count_ = 0;
  double best_eval_loss_ = -1, best_score_ = -1;
  fs::path checkpoint_;  // the last one saved
  std::optional<MetricsLog> metrics_;
  std::chrono::steady_clock::time_point started_;
};

NamedTensors initial_parameters(UViT& model, const Config& config, at::Device device) {
  model.initialise(config.train.seed);
  model.to(device);
  model.train();
  return named_parameters(model);
}

Trainer::Trainer(const TrainRequest& request)
    : config_(request.config),
      run_(request.run),
      device_(select_device(config_.train.device)),
      looks_at_every_step_(device_.is_cpu() || config_.train.precision == "fp16"),
      threads_(set_threads(config_.train)),
      schedule_(make_schedule(config_.diffusion)),
      parameterisation_(find_parameterisation(config_.diffusion.prediction)),
      dataset_(open_dataset(config_.data, Split::train)),
      model_(make_uvit_options(config_)),
      parameters_(initial_parameters(model_, config_, device_)),
      optimizer_(config_.optimizer, parameters_),
      loss_scale_(config_.train.precision == "fp16"),
      loss_sum_(at::zeros({}, at::TensorOptions(device_).dtype(at::kDouble))) {
  check_data(config_, *dataset_);
  prepare_run_folder(run_, request.resume);
  if (config_.train.eval_every > 0) held_out_.emplace(config_);
  if (config_.eval.every_steps > 0) training_score_.emplace(config_);
  for (EmaProfile& profile : ema_profiles(config_.train)) {
    if (const double left = start_share(profile, config_.train.steps); left > 0.01)
      spdlog::warn("EMA {}: {:.1f} % of the initial weights are left in it after {} steps; train.ema_half_life and train.ema_power forget them",
                   profile.name, 100 * left, config_.train.steps);
    emas_.emplace_back(std::move(profile), parameters_);
  }
  device_update_ = make_device_update(optimizer_, emas_);
  if (request.resume) resume();
  metrics_.emplace(run_, step_);
  write_run_config(run_, config_, threads_);
  spdlog::info("{} parameters, {} training images, {} on {} threads\n{}", model_.num_parameters(), dataset_->size(),
               device_.is_cpu() ? "cpu" : describe_cuda(), threads_,
               describe_plan(model_.options().plan, config_.model, config_.train.precision, config_.train.device));
}

TrainResult Trainer::run() {
  const TrainConfig& train = config_.train;
  TrainResult result{.step = step_, .eval_loss = -1, .checkpoint = checkpoint_};
  TrainingBatches batches(*dataset_, config_, *schedule_, images_seen_);
  DeviceBatches on_device(batches, device_);
  Progress progress("train", train.steps * train.batch_size, "images", images_seen_);
  StepClock whole_run, since_log;
  started_ = std::chrono::steady_clock::now();

  while (step_ < train.steps && !interrupt_requested()) {
    whole_run.start();
    since_log.start();
    const TrainingBatch batch = on_device.next();
    whole_run.data_ready();
    since_log.data_ready();
    const Step done = train_step(batch);
    const bool first = step_ == result.step + 1, last = step_ == train.steps;
    // Before the clocks stop: what a GPU still has to do belongs to the steps that gave it.
    if (looks_at_every_step_ || first || last || is_due(train.log_every, step_)) result.loss = done.loss.item<double>();
    whole_run.stop(train.batch_size);
    since_log.stop(train.batch_size);
    progress.update(images_seen_, fmt::format("loss {:.4f}", result.loss));

    const bool score_due = is_due(config_.eval.every_steps, step_);
    const bool checkpoint_due = last || score_due || is_due(train.checkpoint_every, step_);
    std::optional<double> eval_loss;  // taken for every checkpoint of the cadence, so that `best` can be any of them
    if (held_out_ && (checkpoint_due || is_due(train.eval_every, step_))) eval_loss = result.eval_loss = evaluate();
    if (last || eval_loss || is_due(train.log_every, step_)) {
      log(done, since_log.images_per_second(), since_log.data_wait(), eval_loss);
      since_log = {};
    }
    if (is_due(train.sample_every, step_)) preview();
    if (checkpoint_due) save(eval_loss);
    if (score_due) score();
  }

  result.interrupted = step_ < train.steps;
  if (result.interrupted && step_ > result.step && checkpoint_.filename() != fmt::format("step-{}", step_)) save(std::nullopt);
  if (batches.skipped() > 0) spdlog::warn("{} broken images were left out", batches.skipped());
  result.step = step_;
  result.images_per_second = whole_run.images_per_second();
  result.checkpoint = checkpoint_;
  return result;
}

/// One optimizer step on one global batch.
Trainer::Step Trainer::train_step(const TrainingBatch& batch) {
  model_.zero_grad();  // to undefined: the first backward pass hands its buffers over instead of adding to zeros
  Step step;
  step.lr = learning_rate(config_.optimizer, step_, config_.train.steps);
  step.loss = forward_backward(batch);
  if (looks_at_every_step_ && !std::isfinite(step.loss.item<double>())) stop_not_finite("the loss", step_ + 1);
  step.grad_norm = update(step.lr);
  ++step_;
  images_seen_ += config_.train.batch_size;
  loss_sum_ += step.loss;
  ++loss_count_;
  return step;
}

/// Unscales and clips the gradients and applies them. @return their norm before clipping
at::Tensor Trainer::update(double lr) {
  at::Tensor norm;
  if (device_update_) {
    norm = device_update_->measure(1 / loss_scale_.value(), config_.optimizer.clip_grad_norm);
  } else {
    loss_scale_.unscale(parameters_);
    norm = at::scalar_tensor(clip_gradients(parameters_, config_.optimizer.clip_grad_norm), at::kDouble);
  }
  const bool overflow = looks_at_every_step_ && !std::isfinite(norm.item<double>());
  if (overflow && !loss_scale_.can_shrink()) stop_not_finite("the gradient norm", step_ + 1);
  for (Ema& ema : emas_) ema.at_step(step_ + 1);
  if (!overflow && device_update_) {
    device_update_->apply(lr);
  } else if (!overflow) {
    optimizer_.step(lr);
    for (Ema& ema : emas_) ema.update(parameters_);
  }
  loss_scale_.update(overflow);
  return norm;
}

/// Gradients of the mean loss of the global batch, accumulated over micro-batches. @return that loss
at::Tensor Trainer::forward_backward(const TrainingBatch& batch) {
  const std::int64_t n = batch.x0.size(0);
  const std::int64_t micro = config_.train.micro_batch_size > 0 ? config_.train.micro_batch_size : n;
  at::Tensor sum = at::zeros_like(loss_sum_);
  for (std::int64_t first = 0; first < n; first += micro) {
    const std::int64_t size = std::min(micro, n - first);
    const at::Tensor labels = batch.labels.defined() ? batch.labels.narrow(0, first, size) : at::Tensor();
    const at::Tensor context = batch.context.defined() ? batch.context.narrow(0, first, size) : at::Tensor();
    const std::vector<double> t(batch.t.begin() + first, batch.t.begin() + first + size);
    const at::Tensor losses = diffusion_loss(bind_network(model_, config_.train.precision, labels, context), batch.x0.narrow(0, first, size),
                                             batch.eps.narrow(0, first, size), t, *schedule_, parameterisation_,
                                             find_weighting(config_.diffusion.weighting));
    const at::Tensor total = losses.sum();
    (total * (loss_scale_.value() / static_cast<double>(n))).backward();
    sum += total.detach();
  }
  return sum / static_cast<double>(n);
}

double Trainer::read_loss_sum() const {
  const double sum = loss_sum_.item<double>();
  if (!std::isfinite(sum)) stop_not_finite("the loss", step_);
  return sum;
}

double Trainer::evaluate() {
  const WeightsInPlace weights(parameters_, emas_.front().parameters());  // the weights that sampling uses
  const double loss = held_out_->loss(model_, *schedule_, parameterisation_);
  if (!std::isfinite(loss)) stop_not_finite("the held-out loss", step_);
  return loss;
}

void Trainer::log(const Step& step, double images_per_second, double data_wait, const std::optional<double>& eval_loss) {
  const double loss_sum = read_loss_sum(), grad_norm = step.grad_norm.item<double>();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  metrics_->write({.step = step_,
                   .loss = loss_sum / static_cast<double>(loss_count_),
                   .lr = step.lr,
                   .grad_norm = std::isfinite(grad_norm) ? std::optional(grad_norm) : std::nullopt,
                   .images_per_second = images_per_second,
                   .data_wait = data_wait,
                   .seconds = metrics_->seconds_before() + seconds,
                   .eval_loss = eval_loss});
  loss_sum_.zero_();
  loss_count_ = 0;
}

void Trainer::preview() {
  const WeightsInPlace weights(parameters_, emas_.front().parameters());  // the weights that sampling uses
  const torch::NoGradGuard no_grad;
  write_preview(model_, config_, run_, step_, fmt::format("ema_{}", emas_.front().profile()), metrics_->events(), *dataset_);
}

/// Scores the checkpoint just saved.
void Trainer::score() {
  const WeightsInPlace weights(parameters_, emas_.front().parameters());
  const Score found = (*training_score_)(model_, step_, fmt::format("ema_{}", emas_.front().profile()));
  append_score(run_.string(), found);
  metrics_->events().add_scalar("score/" + found.metric, step_, found.value);
  spdlog::info("step {}: {} = {:.6g}", step_, found.metric, found.value);
  if (best_score_ >= 0 && found.value >= best_score_) return;
  best_score_ = found.value;
  link_checkpoint(run_, "best_score", checkpoint_);
}

void Trainer::save(const std::optional<double>& eval_loss) {
  for (const auto& [name, parameter] : parameters_)
    if (!at::isfinite(parameter).all().item<bool>()) stop_not_finite(fmt::format("parameter '{}'", name), step_);
  CheckpointState state{.step = step_,
                        .images_seen = images_seen_,
                        .config = config_,
                        .plan = model_.options().plan,
                        .eval_loss = eval_loss.value_or(-1),
                        .class_names = dataset_->class_names(),
                        .threads = threads_,
                        .loss_sum = read_loss_sum(),
                        .loss_count = loss_count_};
  CheckpointTensors tensors{.model = parameters_, .ema = {}, .optimizer = optimizer_.state()};
  for (const Ema& ema : emas_) tensors.ema[ema.profile()] = ema.parameters();
  tensors.optimizer.emplace_back("loss_scale", loss_scale_.state());
  checkpoint_ = save_checkpoint(run_, state, tensors);
  keep_snapshots(run_, checkpoint_, config_.train);
  if (eval_loss && (best_eval_loss_ < 0 || *eval_loss < best_eval_loss_)) {
    best_eval_loss_ = *eval_loss;
    link_checkpoint(run_, "best", checkpoint_);
  }
  prune_checkpoints(run_, config_.train.keep_checkpoints);
}

void Trainer::resume() {
  checkpoint_ = find_step_folder(run_);
  auto [state, tensors] = load_checkpoint(checkpoint_);
  check_resumable(state.config, config_);
  if (state.threads != threads_)
    spdlog::warn("the run had {} threads and now has {}: its numbers may differ in the last bits from those of an uninterrupted run", state.threads,
                 threads_);
  const std::string origin = (checkpoint_ / "model.safetensors").string();
  load_parameters(model_, to_tensor_file(tensors.model), origin);
  optimizer_.load(tensors.optimizer);
  loss_scale_.load(tensors.optimizer);
  for (Ema& ema : emas_) {
    const auto saved = tensors.ema.find(ema.profile());
    if (saved == tensors.ema.end())
      throw Error(fmt::format("{} has no EMA {}: the run was made without it", checkpoint_.string(), ema.profile()));
    ema.load(saved->second);
  }
  step_ = state.step;
  images_seen_ = state.images_seen;
  loss_sum_.fill_(state.loss_sum);
  loss_count_ = state.loss_count;
  const fs::path best = run_ / "checkpoints" / "best";
  if (fs::is_regular_file(best / "state.json")) best_eval_loss_ = load_state(best).eval_loss;
  best_score_ = best_training_score(run_ / "scores.jsonl", step_);
  spdlog::info("resuming from {}", checkpoint_.string());
}

void Trainer::stop_not_finite(const std::string& what, std::int64_t step) const {
  const std::string kept =
      checkpoint_.empty() ? "no checkpoint was saved before" : fmt::format("the last good checkpoint is {}", checkpoint_.string());
  throw Error(fmt::format("{} is not finite in step {}: {}; try a smaller optimizer.lr, or optimizer.clip_grad_norm", what, step, kept));
}

}  // namespace

TrainResult train(const TrainRequest& request) {
  check_trainable(request.config);
  Trainer trainer(request);
  const TrainResult result = trainer.run();
  clear_interrupt();
  return result;
}

}  // namespace uvit
