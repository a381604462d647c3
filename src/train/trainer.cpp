#include <torch/torch.h>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <optional>
#include <thread>

#include "attention/device.h"
#include "attention/plan.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "distributed/gradient_sum.h"
#include "distributed/replicas.h"
#include "train/device_batches.h"
#include "train/evaluation.h"
#include "train/gradients.h"
#include "train/interrupt.h"
#include "train/metrics_log.h"
#include "train/preview.h"
#include "train/processes.h"
#include "train/run_folder.h"
#include "train/trainer.h"
#include "train/training_batch.h"
#include "train/training_score.h"
#include "train/training_state.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

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

constexpr std::int64_t kCheckedSteps = 3;  // after which the processes' parameters are compared, beside every train.hash_every-th

bool is_due(std::int64_t every, std::int64_t step) { return every > 0 && step % every == 0; }

class Trainer {
 public:
  explicit Trainer(const TrainRequest& request);
  TrainResult run();

 private:
  struct Step {
    at::Tensor loss, alignment, grad_norm;  // 0-dim float64, on the device: reading one waits for a GPU
    double lr = 0;
  };

  Step train_step(const TrainingBatch& batch);
  double mean_loss() const;
  double evaluate();
  void log(const Step& step, double images_per_second, double data_wait, const std::optional<double>& eval_loss);
  void preview();
  void score();
  void save(const std::optional<double>& eval_loss);
  void resume();
  [[noreturn]] void stop_not_finite(const std::string& what, std::int64_t step) const;

  ProcessGroup alone_;
  ProcessGroup& processes_;
  const Config config_;
  const fs::path run_;
  const at::Device device_;
  /// Every step's loss and gradient norm are looked at before the next: on the CPU, and where a loss scale hangs on them. Else the GPU is kept busy:
  /// a step whose gradients are not finite changes nothing, and the next line of the log finds out.
  const bool looks_at_every_step_;
  const std::int64_t threads_;
  const std::unique_ptr<Schedule> schedule_;
  const std::unique_ptr<Dataset> dataset_;
  const std::unique_ptr<AlignmentEncoder> encoder_;  // null without train.align_encoder
  std::optional<HeldOut> held_out_;
  std::optional<TrainingScore> training_score_;
  TrainingState state_;
  const std::unique_ptr<GradientSum> gradient_sum_;
  double best_eval_loss_ = -1, best_score_ = -1;
  fs::path checkpoint_;  // the last one saved
  std::optional<MetricsLog> metrics_;
  std::chrono::steady_clock::time_point started_;
};

Trainer::Trainer(const TrainRequest& request)
    : processes_(request.processes ? *request.processes : alone_),
      config_(request.config),
      run_(request.run),
      device_(device_of_process(config_.train, processes_.launch())),
      looks_at_every_step_(device_.is_cpu() || config_.train.precision == "fp16"),
      threads_(set_threads_of_process(config_.train, processes_.launch())),
      schedule_(make_schedule(config_.diffusion)),
      dataset_(open_dataset(config_.data, Split::train)),
      encoder_(make_alignment_encoder(config_, dataset_->latent(), device_)),
      state_(config_, device_, processes_),
      gradient_sum_(make_gradient_sum(processes_, state_.parameters(), config_.train.reproducible_reduction,
                                      micro_batches_of(config_.train, processes_.size()))) {
  check_data(config_, *dataset_);
  if (!config_.train.init_from.empty() && !has_checkpoints(run_)) state_.start_from(config_.train.init_from);
  const bool goes_on = begin_run(run_, request.resume, processes_);
  processes_.first_alone([this] {
    if (config_.train.eval_every > 0) held_out_.emplace(config_);
    if (config_.eval.every_steps > 0) training_score_.emplace(config_);
  });
  if (goes_on) resume();
  if (!processes_.is_first()) return;
  metrics_.emplace(run_, state_.step);
  write_run_config(run_, config_, threads_);
  spdlog::info("{} parameters, {} training images, {}{} on {} threads\n{}", state_.model().num_parameters(), dataset_->size(),
               processes_.alone() ? "" : fmt::format("{} processes, each with ", processes_.size()), device_.is_cpu() ? "cpu" : describe_cuda(), threads_,
               describe_plan(state_.model().options().plan, config_.model, config_.train.precision, config_.train.device));
}

TrainResult Trainer::run() {
  const TrainConfig& train = config_.train;
  TrainResult result{.step = state_.step, .eval_loss = -1, .checkpoint = checkpoint_};
  TrainingBatches batches(*dataset_, config_, *schedule_, state_.images_seen, processes_.rank(), processes_.size());
  DeviceBatches on_device(batches, device_);
  std::optional<Progress> progress;
  if (processes_.is_first()) progress.emplace("train", train.steps * train.batch_size, "images", state_.images_seen);
  StepClock whole_run, since_log;
  started_ = std::chrono::steady_clock::now();

  while (state_.step < train.steps && !processes_.any(interrupt_requested())) {
    whole_run.start();
    since_log.start();
    const TrainingBatch batch = on_device.next();
    whole_run.data_ready();
    since_log.data_ready();
    const Step done = train_step(batch);
    const bool first = state_.step == result.step + 1, last = state_.step == train.steps;
    // Before the clocks stop: what a GPU still has to do belongs to the steps that gave it.
    if (looks_at_every_step_ || first || last || is_due(train.log_every, state_.step)) result.loss = done.loss.item<double>();
    whole_run.stop(train.batch_size);
    since_log.stop(train.batch_size);
    if (state_.step <= result.step + kCheckedSteps || is_due(train.hash_every, state_.step))
      check_equal_replicas(processes_, state_.parameters(), state_.step);
    if (progress) progress->update(state_.images_seen, fmt::format("loss {:.4f}", result.loss));

    const bool score_due = is_due(config_.eval.every_steps, state_.step);
    const bool checkpoint_due = last || score_due || is_due(train.checkpoint_every, state_.step);
    std::optional<double> eval_loss;  // taken for every checkpoint of the cadence, so that `best` can be any of them
    if (train.eval_every > 0 && (checkpoint_due || is_due(train.eval_every, state_.step))) eval_loss = result.eval_loss = evaluate();
    if (last || eval_loss || is_due(train.log_every, state_.step)) {
      log(done, since_log.images_per_second(), since_log.data_wait(), eval_loss);
      since_log = {};
    }
    if (is_due(train.sample_every, state_.step)) processes_.first_alone([this] { preview(); });
    if (checkpoint_due) save(eval_loss);
    if (score_due) processes_.first_alone([this] { score(); });
  }

  result.interrupted = state_.step < train.steps;
  if (result.interrupted && state_.step > result.step && checkpoint_.filename() != fmt::format("step-{}", state_.step)) save(std::nullopt);
  if (const std::size_t broken = count_distinct(processes_, batches.broken()); broken > 0) spdlog::warn("{} broken images were left out", broken);
  result.step = state_.step;
  result.images_per_second = whole_run.images_per_second();
  result.checkpoint = checkpoint_;
  return result;
}

/// One optimizer step on one global batch.
Trainer::Step Trainer::train_step(const TrainingBatch& batch) {
  state_.model().zero_grad();  // to undefined: the first backward pass hands its buffers over instead of adding to zeros
  Step step;
  step.lr = learning_rate(config_.optimizer, state_.step, config_.train.steps);
  const BatchLosses losses = add_gradients(state_.model(), batch, config_, *schedule_, state_.loss_scale(), *gradient_sum_, encoder_.get());
  step.loss = losses.diffusion;
  step.alignment = losses.alignment;
  if (looks_at_every_step_ && !std::isfinite(step.loss.item<double>())) stop_not_finite("the loss", state_.step + 1);
  const TrainingState::Update update = state_.apply_gradients(step.lr, looks_at_every_step_);
  if (update.bad) stop_not_finite("the gradient norm", state_.step + 1);
  step.grad_norm = update.grad_norm;
  ++state_.step;
  state_.images_seen += config_.train.batch_size;
  state_.add_loss(step.loss);
  return step;
}

double Trainer::mean_loss() const {
  const double loss = state_.mean_loss();
  if (!std::isfinite(loss)) stop_not_finite("the loss", state_.step);
  return loss;
}

double Trainer::evaluate() {
  at::Tensor of_first = at::zeros({1}, at::kDouble);
  processes_.first_alone([&] {
    const WeightsInPlace weights(state_.parameters(), state_.sampled_weights());  // the weights that sampling uses
    of_first[0] = held_out_->loss(state_.model(), *schedule_, find_parameterisation(config_.diffusion.prediction));
  });
  processes_.broadcast({of_first});
  const double loss = of_first.item<double>();
  if (!std::isfinite(loss)) stop_not_finite("the held-out loss", state_.step);
  return loss;
}

void Trainer::log(const Step& step, double images_per_second, double data_wait, const std::optional<double>& eval_loss) {
  const double loss = mean_loss(), grad_norm = step.grad_norm.item<double>();
  state_.reset_loss();
  if (!processes_.is_first()) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  metrics_->write({.step = state_.step,
                   .loss = loss,
                   .lr = step.lr,
                   .grad_norm = std::isfinite(grad_norm) ? std::optional(grad_norm) : std::nullopt,
                   .images_per_second = images_per_second,
                   .data_wait = data_wait,
                   .seconds = metrics_->seconds_before() + seconds,
                   .eval_loss = eval_loss,
                   .align_loss = step.alignment.defined() ? std::optional(step.alignment.item<double>()) : std::nullopt});
}

/// Rank 0's work, as is a score.
void Trainer::preview() {
  const WeightsInPlace weights(state_.parameters(), state_.sampled_weights());  // the weights that sampling uses
  const torch::NoGradGuard no_grad;
  write_preview(state_.model(), config_, run_, state_.step, state_.sampled_name(), metrics_->events(), *dataset_);
}

/// Scores the checkpoint just saved.
void Trainer::score() {
  const WeightsInPlace weights(state_.parameters(), state_.sampled_weights());
  const Score found = (*training_score_)(state_.model(), state_.step, state_.sampled_name());
  append_score(run_.string(), found);
  metrics_->events().add_scalar("score/" + found.metric, state_.step, found.value);
  spdlog::info("step {}: {} = {:.6g}", state_.step, found.metric, found.value);
  if (best_score_ >= 0 && found.value >= best_score_) return;
  best_score_ = found.value;
  link_checkpoint(run_, "best_score", checkpoint_);
}

void Trainer::save(const std::optional<double>& eval_loss) {
  mean_loss();  // stops where it is not finite
  for (const auto& [name, parameter] : state_.parameters())
    if (!at::isfinite(parameter).all().item<bool>()) stop_not_finite(fmt::format("parameter '{}'", name), state_.step);
  checkpoint_ = state_.save(run_, eval_loss, dataset_->class_names(), threads_);
  if (!processes_.is_first()) return;
  if (eval_loss && (best_eval_loss_ < 0 || *eval_loss < best_eval_loss_)) {
    best_eval_loss_ = *eval_loss;
    link_checkpoint(run_, "best", checkpoint_);
  }
  prune_checkpoints(run_, config_.train.keep_checkpoints);
}

void Trainer::resume() {
  if (processes_.is_first()) {
    checkpoint_ = find_step_folder(run_);
    check_resumable(load_state(checkpoint_).config, config_);
  }
  checkpoint_ = processes_.broadcast(checkpoint_.string());
  const CheckpointState saved = state_.load(checkpoint_);
  if (!processes_.is_first()) return;
  if (saved.threads != threads_)
    spdlog::warn("the run had {} threads and now has {}: its numbers may differ in the last bits from those of an uninterrupted run", saved.threads,
                 threads_);
  const fs::path best = run_ / "checkpoints" / "best";
  if (fs::is_regular_file(best / "state.json")) best_eval_loss_ = load_state(best).eval_loss;
  best_score_ = best_training_score(run_ / "scores.jsonl", state_.step);
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
  check_processes(request.config.train, request.processes ? request.processes->size() : 1);
  Trainer trainer(request);
  const TrainResult result = trainer.run();
  clear_interrupt();
  return result;
}

}  // namespace uvit
