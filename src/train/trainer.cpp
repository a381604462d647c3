#include <torch/torch.h>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <thread>

#include "attention/device.h"
#include "attention/plan.h"
#include "core/error.h"
#include "core/process_info.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "distributed/gradient_sum.h"
#include "distributed/replicas.h"
#include "train/cadence.h"
#include "train/check_run.h"
#include "train/checkpoint_choice.h"
#include "train/device_batches.h"
#include "train/diagnosis.h"
#include "train/ema_snapshots.h"
#include "train/evaluation.h"
#include "train/gradients.h"
#include "train/histograms.h"
#include "train/interrupt.h"
#include "train/metrics_log.h"
#include "train/preview.h"
#include "train/processes.h"
#include "train/run_folder.h"
#include "train/run_status.h"
#include "train/trainer.h"
#include "train/training_batch.h"
#include "train/training_score.h"
#include "train/training_state.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kCheckedSteps = 3;  // after which the processes' parameters are compared, beside every train.hash_every-th

constexpr std::int64_t kWatchedImages = 4;  // of a batch, whose attention scores the log tells of

/// The lowest of some values.
class Lowest {
 public:
  /// Whether it is below all before.
  bool take(double value) {
    if (lowest_ && value >= *lowest_) return false;
    lowest_ = value;
    return true;
  }

 private:
  std::optional<double> lowest_;
};

class Trainer {
 public:
  explicit Trainer(const TrainRequest& request);
  TrainResult run();
  /// For `uvit runs`; as well as a disk that may be full allows.
  void note_failure(const std::string& error);

 private:
  struct Step {
    at::Tensor loss, alignment, grad_norm;  // 0-dim float64, on the device: reading one waits for a GPU
    double lr = 0, update_ratio = 0;
  };
  /// Weights that give no finite numbers any more: training must go back to a checkpoint.
  struct Unsound {
    std::string why;
  };

  void train_steps(TrainResult& result);
  Step train_step(const TrainingBatch& batch);
  bool is_last() const { return cadence_.is_last(state_.step); }
  UnfinishedStep report(const Step& step);
  void finish_step(TrainResult& result);
  double evaluate();
  void log(const std::optional<double>& eval_loss);
  void preview();
  void score();
  bool owes_score();
  void save(const std::optional<double>& eval_loss);
  void resume();
  void link_best();
  void check_sound();
  void roll_back(const std::string& why);
  [[noreturn]] void stop(const std::string& why);

  ProcessGroup alone_;
  ProcessGroup& processes_;
  const Config config_;
  const Cadence cadence_;
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
  std::optional<FileLock> lock_;
  Lowest best_eval_loss_, best_score_;
  fs::path checkpoint_;  // the last one saved
  std::optional<MetricsLog> metrics_;
  std::optional<UnfinishedStep> unfinished_;  // the step whose evaluation, line and pictures are still to be done
  TrainingBatch batch_;                       // of the last step
  StepClock whole_run_, since_log_;
  std::chrono::steady_clock::time_point started_;
};

Trainer::Trainer(const TrainRequest& request)
    : processes_(request.processes ? *request.processes : alone_),
      config_(request.config),
      cadence_(config_),
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
  if (config_.train.eval_every > 0) {
    processes_.first_alone([this] { held_out_.emplace(config_); });  // what cannot be read is said once
    if (!held_out_) held_out_.emplace(config_);
  }
  if (config_.eval.every_steps > 0) training_score_.emplace(config_, processes_);
  const bool goes_on = begin_run(run_, request.resume, processes_, lock_);
  if (goes_on) resume();
  if (!processes_.is_first()) return;
  metrics_.emplace(run_, unfinished_ ? state_.step - 1 : state_.step);
  drop_training_scores_beyond(run_ / "scores.jsonl", state_.step);
  if (goes_on) link_best();
  if (state_.step == 0) metrics_->add_settings(run_.filename().string(), config_);
  write_run_config(run_, config_, threads_);
  write_run_status(run_, {.state = "running", .step = state_.step, .steps = config_.train.steps, .error = {}});
  spdlog::info("{} parameters, {} training images, {}{} on {} threads\n{}", state_.model().num_parameters(), dataset_->size(),
               processes_.alone() ? "" : fmt::format("{} processes, each with ", processes_.size()), device_.is_cpu() ? "cpu" : describe_cuda(), threads_,
               describe_plan(state_.model().options().plan, config_.model, config_.train.precision, config_.train.device));
}

TrainResult Trainer::run() {
  TrainResult result{.step = state_.step, .eval_loss = -1, .checkpoint = checkpoint_};
  const std::int64_t begun_at = state_.step, rollbacks = state_.rollbacks;
  started_ = std::chrono::steady_clock::now();
  try {
    train_steps(result);
  } catch (const Interrupted&) {
    result.interrupted = true;
  }
  result.interrupted = result.interrupted || !is_last();
  const bool moved = state_.step > begun_at || state_.rollbacks > rollbacks;
  if (result.interrupted && moved && (unfinished_ || checkpoint_.filename() != fmt::format("step-{}", state_.step))) save(std::nullopt);
  result.step = state_.step;
  result.images_per_second = whole_run_.images_per_second();
  result.checkpoint = checkpoint_;
  if (!processes_.is_first()) return result;
  if (!result.interrupted) metrics_->events().end_hparams(true);
  write_run_status(run_, {.state = result.interrupted ? "interrupted" : "finished", .step = state_.step, .steps = config_.train.steps, .error = {}});
  return result;
}

void Trainer::note_failure(const std::string& error) {
  if (!processes_.is_first()) return;
  try {
    metrics_->events().end_hparams(false);
    write_run_status(run_, {.state = "failed", .step = state_.step, .steps = config_.train.steps, .error = error});
  } catch (const Error&) {
    return;  // what failed first is what the user is told
  }
}

/// Throws Interrupted, in all processes, where a signal leaves a step unfinished or a score to be taken.
void Trainer::train_steps(TrainResult& result) {
  const TrainConfig& train = config_.train;
  TrainingBatches batches(*dataset_, config_, *schedule_, state_.images_seen, processes_.rank(), processes_.size());
  DeviceBatches on_device(batches, device_);
  std::optional<Progress> progress;
  if (processes_.is_first()) progress.emplace("train", train.steps * train.batch_size, "images", state_.step * train.batch_size);
  const std::int64_t begun_at = state_.step;
  if (!unfinished_ && owes_score()) score();

  while (true) {
    try {
      if (!unfinished_) {
        if (is_last() || processes_.any(interrupt_requested())) break;
        whole_run_.start();
        since_log_.start();
        batch_ = on_device.next();
        whole_run_.data_ready();
        since_log_.data_ready();
        const Step done = train_step(batch_);
        // Before the clocks stop: what a GPU still has to do belongs to the steps that gave it.
        if (looks_at_every_step_ || state_.step == begun_at + 1 || cadence_.log(state_.step)) result.loss = done.loss.item<double>();
        whole_run_.stop(train.batch_size);
        since_log_.stop(train.batch_size);
        if (state_.step <= begun_at + kCheckedSteps || cadence_.comparison(state_.step))
          check_equal_replicas(processes_, state_.parameters(), state_.step);
        if (progress) progress->update(state_.step * train.batch_size, fmt::format("loss {:.4f}  {}", result.loss, format_bytes(resident_bytes())));
        check_sound();
        unfinished_ = report(done);
      }
      finish_step(result);
    } catch (const Unsound& unsound) {
      roll_back(unsound.why);
    }
  }
  if (const std::size_t broken = count_distinct(processes_, batches.broken()); broken > 0) spdlog::warn("{} broken images were left out", broken);
}

/// One optimizer step on one global batch.
Trainer::Step Trainer::train_step(const TrainingBatch& batch) {
  state_.model().zero_grad();  // to undefined: the first backward pass hands its buffers over instead of adding to zeros
  Step step;
  step.lr = learning_rate(config_.optimizer, state_.step, config_.train.steps);
  const BatchLosses losses = add_gradients(state_.model(), batch, config_, *schedule_, state_.loss_scale(), *gradient_sum_, encoder_.get());
  step.loss = losses.diffusion;
  step.alignment = losses.alignment;
  const TrainingState::Update update = state_.apply_gradients(step.lr, step.loss, looks_at_every_step_, cadence_.line(state_.step + 1));
  step.grad_norm = update.grad_norm;
  step.update_ratio = update.ratio;
  ++state_.step;
  state_.images_seen += config_.train.batch_size;
  return step;
}

/// What the step's line of the log will say, taken before anything that a signal may leave unfinished.
UnfinishedStep Trainer::report(const Step& step) {
  const auto if_finite = [](double value) { return std::isfinite(value) ? std::optional(value) : std::nullopt; };
  UnfinishedStep report{.lr = step.lr, .loss = {}, .grad_norm = {}, .update_ratio = {}, .max_attention_score = {}, .align_loss = {}};
  if (metrics_ && cadence_.histograms(state_.step)) add_histograms(metrics_->events(), state_.step, state_.parameters());
  if (!cadence_.line(state_.step)) return report;
  report.loss = state_.mean_loss();
  report.grad_norm = if_finite(step.grad_norm.item<double>());
  report.update_ratio = if_finite(step.update_ratio);
  if (step.alignment.defined()) report.align_loss = if_finite(step.alignment.item<double>());
  if (!processes_.is_first()) return report;
  const ForwardReport forward = inspect_forward(state_.model(), batch_, config_, *schedule_, kWatchedImages, false);
  report.max_attention_score = if_finite(forward.max_score());
  for (const auto& [block, score] : forward.max_scores)
    if (std::isfinite(score)) metrics_->events().add_scalar("attention/max_score/" + block, state_.step, score);
  return report;
}

/// Everything that follows a step.
void Trainer::finish_step(TrainResult& result) {
  std::optional<double> eval_loss;
  if (cadence_.evaluation(state_.step)) eval_loss = result.eval_loss = evaluate();
  if (cadence_.line(state_.step)) log(eval_loss);
  if (cadence_.preview(state_.step)) preview();
  // Not among bad steps, whose weights may be the cause of them: `latest` stays at a checkpoint that nothing speaks against.
  const bool saves = cadence_.checkpoint(state_.step) && (is_last() || state_.bad_steps() == 0);
  unfinished_.reset();
  if (!saves) return;
  save(eval_loss);
  if (cadence_.score(state_.step)) score();
}

double Trainer::evaluate() {
  const WeightsInPlace weights(state_.parameters(), state_.sampled_weights());  // the weights that sampling uses
  const double loss = held_out_->loss(state_.model(), *schedule_, find_parameterisation(config_.diffusion.prediction), processes_);
  if (!std::isfinite(loss)) throw Unsound{"the held-out loss is not finite"};
  return loss;
}

void Trainer::log(const std::optional<double>& eval_loss) {
  state_.reset_loss();
  const std::int64_t skipped = state_.skipped_steps();
  if (processes_.is_first()) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
    metrics_->write({.step = state_.step,
                     .loss = unfinished_->loss,
                     .lr = unfinished_->lr,
                     .grad_norm = unfinished_->grad_norm,
                     .images_per_second = since_log_.images_per_second(),
                     .data_wait = since_log_.data_wait(),
                     .seconds = metrics_->seconds_before() + seconds,
                     .eval_loss = eval_loss,
                     .update_ratio = unfinished_->update_ratio,
                     .max_attention_score = unfinished_->max_attention_score,
                     .skipped_steps = skipped,
                     .rollbacks = state_.rollbacks,
                     .align_loss = unfinished_->align_loss});
  }
  since_log_ = {};
}

void Trainer::preview() {
  const WeightsInPlace weights(state_.parameters(), state_.sampled_weights());
  const Image grid = draw_preview(state_.model(), config_, *dataset_, processes_);
  if (processes_.is_first()) write_preview(grid, run_, state_.step, state_.sampled_name(), metrics_->events());
}

/// Scores the checkpoint just saved.
void Trainer::score() {
  const WeightsInPlace weights(state_.parameters(), state_.sampled_weights());
  const std::optional<Score> found = (*training_score_)(state_.model(), state_.step, state_.sampled_name());
  if (!found) return;
  append_score(run_.string(), *found);
  metrics_->events().add_scalar("score/" + found->metric, state_.step, found->value);
  spdlog::info("step {}: {} = {:.6g}", state_.step, found->metric, found->value);
  if (best_score_.take(found->value)) link_checkpoint(run_, "best_score", checkpoint_);
}

/// Whether the run was stopped between its checkpoint and the score of it.
bool Trainer::owes_score() {
  if (state_.step == 0 || !cadence_.score(state_.step)) return false;
  bool owed = false;
  if (processes_.is_first()) {
    const auto taken = training_score_->taken_before(run_ / "scores.jsonl");
    owed = std::none_of(taken.begin(), taken.end(), [this](const TakenScore& score) { return score.step == state_.step; });
  }
  return processes_.any(owed);
}

void Trainer::save(const std::optional<double>& eval_loss) {
  if (metrics_) metrics_->sync();
  CheckpointState state;
  state.eval_loss = eval_loss.value_or(-1);
  state.class_names = dataset_->class_names();
  state.threads = threads_;
  state.unfinished = unfinished_;
  checkpoint_ = state_.save(run_, std::move(state));
  if (!processes_.is_first()) return;
  if (eval_loss && best_eval_loss_.take(*eval_loss)) link_checkpoint(run_, "best", checkpoint_);
  prune_checkpoints(run_, config_.train.keep_checkpoints);
}

void Trainer::resume() {
  CheckpointState saved;
  CheckpointTensors tensors;
  if (processes_.is_first()) {
    checkpoint_ = read_newest_sound(run_, saved, tensors);
    check_resumable(saved.config, config_);
  }
  checkpoint_ = processes_.broadcast(checkpoint_.string());
  state_.restore(saved, tensors, checkpoint_);
  unfinished_ = saved.unfinished;
  if (processes_.any(unfinished_.has_value()) && !unfinished_) unfinished_.emplace();
  if (!processes_.is_first()) return;
  if (saved.threads != threads_)
    spdlog::warn("the run had {} threads and now has {}: its numbers may differ in the last bits from those of an uninterrupted run", saved.threads,
                 threads_);
  keep_snapshots(run_, checkpoint_, config_.train);  // a crash may have come between the checkpoint and these
  spdlog::info("resuming from {}", checkpoint_.string());
}

/// Lets best and best_score lead to the best of the checkpoints that are there, whatever a crash or a return to an earlier one left of the links.
void Trainer::link_best() {
  best_eval_loss_ = {};
  best_score_ = {};
  const auto best = best_checkpoint(run_);
  if (best && best_eval_loss_.take(best->second)) link_checkpoint(run_, "best", best->first);
  if (!training_score_) return;
  fs::path best_scored;
  for (const TakenScore& score : training_score_->taken_before(run_ / "scores.jsonl"))
    if (best_score_.take(score.value)) best_scored = run_ / "checkpoints" / fmt::format("step-{}", score.step);
  if (!best_scored.empty() && fs::exists(best_scored)) link_checkpoint(run_, "best_score", best_scored);
}

/// Throws Unsound for weights that train no further. A GPU is asked when something is written anyway.
void Trainer::check_sound() {
  if (!looks_at_every_step_ && !cadence_.log(state_.step) && !cadence_.checkpoint(state_.step)) return;
  if (const std::int64_t bad = state_.bad_steps(); bad >= config_.train.max_bad_steps)
    throw Unsound{fmt::format("{} steps in a row without finite loss and gradients", bad)};
  if (!cadence_.checkpoint(state_.step)) return;
  for (const auto& [name, parameter] : state_.parameters())
    if (!at::isfinite(parameter).all().item<bool>()) throw Unsound{fmt::format("parameter '{}' is not finite", name)};
}

void Trainer::roll_back(const std::string& why) {
  if (state_.rollbacks >= config_.train.max_rollbacks) stop(why);
  CheckpointState saved;
  CheckpointTensors tensors;
  std::string target;
  if (processes_.is_first()) target = read_last_good(run_, config_, state_.step - state_.bad_steps(), saved, tensors).string();
  target = processes_.broadcast(target);
  if (target.empty()) stop(why);
  const std::int64_t from = state_.step;
  state_.roll_back(saved, tensors, target);
  unfinished_.reset();
  if (processes_.is_first()) {
    spdlog::warn("step {}: {}; back to {} and on with the images that follow ({} of {} times)", from, why, target, state_.rollbacks,
                 config_.train.max_rollbacks);
    link_checkpoint(run_, "latest", target);  // first: from here on a crash finds the way that led to this step again
  }
  saved.rolled_back_to = true;
  checkpoint_ = state_.save(run_, std::move(saved));
  if (!processes_.is_first()) return;
  remove_checkpoints_beyond(run_, state_.step);
  remove_snapshots_beyond(run_, state_.step);
  metrics_->rewind(state_.step);
  drop_training_scores_beyond(run_ / "scores.jsonl", state_.step);
  link_best();
}

/// Ends training with what a diagnostic pass over the last batch finds.
void Trainer::stop(const std::string& why) {
  const std::string kept = checkpoint_.empty() ? "no checkpoint was saved before" : fmt::format("the newest checkpoint is {}", checkpoint_.string());
  std::string found;
  processes_.first_alone([&] {
    if (!batch_.x0.defined()) return;
    const ForwardReport forward = inspect_forward(state_.model(), batch_, config_, *schedule_, batch_.x0.size(0), true);
    found = first_not_finite(state_.model(), batch_, forward);
    for (const auto& [block, score] : forward.max_scores) spdlog::warn("largest attention score of {}: {:g}", block, score);
    found = fmt::format("; first not finite: {}; largest attention score {:g}", found.empty() ? "nothing in a pass over the last images" : found,
                        forward.max_score());
  });
  if (!processes_.is_first()) processes_.barrier();  // until rank 0, which has said it, is gone
  throw Error(fmt::format("training stopped in step {}: {}, {} of {} returns to a checkpoint done{}; {}; try a smaller optimizer.lr, or "
                          "optimizer.clip_grad_norm",
                          state_.step, why, state_.rollbacks, config_.train.max_rollbacks, found, kept));
}

}  // namespace

TrainResult train(const TrainRequest& request) {
  check_trainable(request.config);
  check_processes(request.config.train, request.processes ? request.processes->size() : 1);
  Trainer trainer(request);
  try {
    const TrainResult result = trainer.run();
    clear_interrupt();
    return result;
  } catch (const std::exception& error) {
    trainer.note_failure(error.what());
    throw;
  }
}

}  // namespace uvit
