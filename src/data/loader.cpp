#include "data/loader.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>

#include "core/error.h"
#include "core/ordered_prefetch.h"
#include "core/random.h"

namespace uvit {
namespace {

/// The order of all epochs; the permutations of the two newest ones asked for are kept, since workers straddle the border between epochs.
class Order {
 public:
  using Permutation = std::shared_ptr<const std::vector<std::int64_t>>;
  Order(std::int64_t size, std::uint64_t seed) : size_(size), seed_(seed) {}

  Permutation epoch(std::int64_t number) {
    const std::lock_guard lock(mutex_);
    Permutation& permutation = kept_[number];
    if (!permutation) permutation = std::make_shared<std::vector<std::int64_t>>(random_permutation(size_, seed_, static_cast<std::uint64_t>(number)));
    const Permutation result = permutation;
    if (kept_.size() > 2) kept_.erase(kept_.begin());
    return result;
  }

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  std::mutex mutex_;
  std::map<std::int64_t, Permutation> kept_;
};

struct Slot {
  Batch batch;
  std::map<std::int64_t, std::string> broken;  ///< dataset index -> what is wrong
};

}  // namespace

struct DataLoader::State {
  State(const Dataset& data, const LoaderOptions& chosen)
      : dataset(data),
        options(chosen),
        order(data.size(), chosen.seed),
        batches([this](std::int64_t number, Slot& slot) { make(number, slot); },
                {std::max<std::int64_t>(1, chosen.workers), std::max<std::int64_t>(1, chosen.prefetch)}) {}

  void make(std::int64_t number, Slot& slot);
  SampleDraw draw(std::int64_t n) const;
  /// Reads global sample n into `values`, or where that image is broken and may be skipped, the next one of the epoch's order. @return its index
  std::int64_t read_sample(std::int64_t n, std::span<float> values, Slot& slot);

  const Dataset& dataset;
  const LoaderOptions options;
  Order order;
  std::mutex mutex;  // guards `broken`
  std::set<std::int64_t> broken;
  OrderedPrefetch<Slot> batches;  // last: its threads use the rest
};

void DataLoader::State::make(std::int64_t number, Slot& slot) {
  const std::int64_t channels = dataset.channels(), height = dataset.height(), width = dataset.width(), pixels = channels * height * width;
  Batch& batch = slot.batch;
  const std::int64_t rows = options.rows > 0 ? options.rows : options.batch_size;
  batch.first_sample = options.first_sample + number * options.batch_size + options.first_row;
  batch.images.resize(static_cast<std::size_t>(rows * pixels));
  const auto context = static_cast<std::size_t>(dataset.context_tokens() * dataset.context_dim());
  batch.contexts.resize(static_cast<std::size_t>(rows) * context);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t n = batch.first_sample + i;
    const std::span image = std::span(batch.images).subspan(static_cast<std::size_t>(i * pixels), static_cast<std::size_t>(pixels));
    const std::int64_t index = read_sample(n, image, slot);
    batch.indexes.push_back(index);
    batch.labels.push_back(dataset.label(index));
    if (context > 0) dataset.read_context(index, draw(n), std::span(batch.contexts).subspan(static_cast<std::size_t>(i) * context, context));
  }
}

SampleDraw DataLoader::State::draw(std::int64_t n) const {
  const auto sample = static_cast<std::uint64_t>(n);
  return {options.seed, sample, options.flip && RandomStream(options.seed, RandomPurpose::flip, sample).uniform() < 0.5};
}

std::int64_t DataLoader::State::read_sample(std::int64_t n, std::span<float> values, Slot& slot) {
  const std::int64_t size = dataset.size();
  const Order::Permutation permutation = order.epoch(n / size);
  for (std::int64_t tries = 0; tries < size; ++tries) {
    const std::int64_t index = (*permutation)[static_cast<std::size_t>((n + tries) % size)];
    try {
      dataset.read_values(index, draw(n), values);
      return index;
    } catch (const Error& e) {
      if (!options.skip_broken) throw;
      slot.broken.emplace(index, e.what());
    }
  }
  throw Error(fmt::format("none of the {} images can be read; the first: {}", size, slot.broken.begin()->second));
}

DataLoader::DataLoader(const Dataset& dataset, const LoaderOptions& options) {
  if (dataset.size() < 1) throw Error("a loader needs a dataset with at least one image");
  if (options.batch_size < 1 || options.first_sample < 0)
    throw Error(fmt::format("a loader needs a batch size of 1 or more, not {}", options.batch_size));
  if (options.first_row < 0 || options.rows < 0 || options.first_row + options.rows > options.batch_size)
    throw Error(fmt::format("a loader cannot make rows {} to {} of batches of {}", options.first_row, options.first_row + options.rows, options.batch_size));
  state_ = std::make_unique<State>(dataset, options);
}

DataLoader::~DataLoader() = default;

Batch DataLoader::next() {
  auto& [slot, error] = state_->batches.front();
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [index, reason] : slot.broken) {
      if (state_->broken.insert(index).second) spdlog::warn("left out: {}", reason);
    }
  }
  if (error) std::rethrow_exception(error);  // the slot stays, so that a further call fails the same way
  Batch batch = std::move(slot.batch);
  state_->batches.pop();
  return batch;
}

std::set<std::int64_t> DataLoader::broken() const {
  const std::lock_guard lock(state_->mutex);
  return state_->broken;
}

}  // namespace uvit
