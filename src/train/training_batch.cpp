#include <torch/torch.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/random.h"
#include "data/loader.h"
#include "diffusion/time_law.h"
#include "train/training_batch.h"

namespace uvit {
namespace {

constexpr std::size_t kReady = 2;  // batches held ready; the loader holds more of them, without noise

LoaderOptions loader_options(const Config& config, std::int64_t first_sample, int rank, int processes) {
  LoaderOptions options;
  options.seed = config.train.seed;
  options.batch_size = config.train.batch_size;
  options.first_sample = first_sample;
  options.rows = config.train.batch_size / processes;
  options.first_row = options.rows * rank;
  options.flip = config.data.flip;
  options.workers = config.data.workers;
  options.prefetch = config.data.prefetch;
  options.skip_broken = config.data.on_error == "skip";
  return options;
}

TrainingBatch draw(const Batch& images, const Config& config, const Schedule& schedule, const std::vector<float>& empty_context) {
  const auto n = static_cast<std::int64_t>(images.indexes.size());
  const std::uint64_t seed = config.train.seed;
  TrainingBatch batch;
  // Copied into tensors of their own: LibTorch aligns them to 64 bytes, and the bits of a matrix product may hang on alignment.
  // Pinned where a GPU trains: it fetches them by itself.
  const at::TensorOptions options = at::TensorOptions(torch::kFloat32).pinned_memory(config.train.device == "cuda");
  batch.x0 = torch::empty({n, config.data.channels, config.data.height(), config.data.width()}, options);
  batch.eps = torch::empty(batch.x0.sizes(), options);
  std::copy(images.images.begin(), images.images.end(), batch.x0.data_ptr<float>());
  if (config.data.num_classes > 0) batch.labels = torch::empty({n}, options.dtype(torch::kInt64));

  if (config.model.context_dim > 0) {
    batch.context = torch::empty({n, config.model.context_tokens, config.model.context_dim}, options);
    std::copy(images.contexts.begin(), images.contexts.end(), batch.context.data_ptr<float>());
  }

  const std::int64_t values = batch.x0.numel() / n;
  const TimeLaw law(config.diffusion, schedule);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto sample = static_cast<std::uint64_t>(images.first_sample + i);
    batch.t.push_back(law(stratified_draw(RandomStream(seed, RandomPurpose::t, sample).uniform(), sample, config)));
    RandomStream(seed, RandomPurpose::noise, sample).fill_normal({batch.eps.data_ptr<float>() + i * values, static_cast<std::size_t>(values)});
    const bool dropped = RandomStream(seed, RandomPurpose::label_drop, sample).uniform() < config.diffusion.label_dropout;
    if (batch.labels.defined()) batch.labels.data_ptr<std::int64_t>()[i] = dropped ? config.data.num_classes : images.labels[static_cast<std::size_t>(i)];
    if (batch.context.defined() && dropped)
      std::copy(empty_context.begin(), empty_context.end(), batch.context.data_ptr<float>() + i * static_cast<std::int64_t>(empty_context.size()));
  }
  return batch;
}

}  // namespace

struct TrainingBatches::State {
  State(const Dataset& dataset, const Config& config_, const Schedule& schedule_, const LoaderOptions& options)
      : config(config_), schedule(schedule_), loader(dataset, options) {
    if (config.model.context_dim == 0) return;
    empty_context.resize(static_cast<std::size_t>(config.model.context_tokens * config.model.context_dim));
    dataset.read_empty_context(empty_context);
  }

  void run() {
    try {
      while (true) {
        TrainingBatch batch = draw(loader.next(), config, schedule, empty_context);
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return ready.size() < kReady || stopped; });
        if (stopped) return;
        ready.push_back(std::move(batch));
        changed.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
      changed.notify_all();
    }
  }

  const Config config;
  const Schedule& schedule;
  std::vector<float> empty_context;  // [tokens, dim]; empty for a model without context
  DataLoader loader;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<TrainingBatch> ready;
  std::exception_ptr error;
  bool stopped = false;
  std::thread thread;
};

TrainingBatches::TrainingBatches(const Dataset& dataset, const Config& config, const Schedule& schedule, std::int64_t first_sample, int rank,
                                 int processes)
    : state_(std::make_unique<State>(dataset, config, schedule, loader_options(config, first_sample, rank, processes))) {
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

TrainingBatches::~TrainingBatches() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopped = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

TrainingBatch TrainingBatches::next() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->ready.empty() || state_->error; });
  if (state_->ready.empty()) std::rethrow_exception(state_->error);  // what was read before the error is trained on first
  TrainingBatch batch = std::move(state_->ready.front());
  state_->ready.pop_front();
  state_->changed.notify_all();
  return batch;
}

std::set<std::int64_t> TrainingBatches::broken() const { return state_->loader.broken(); }

}  // namespace uvit
