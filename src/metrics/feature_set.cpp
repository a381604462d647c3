#include <torch/torch.h>

#include "metrics/feature_set.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "data/image_folder.h"

namespace uvit {
namespace {

at::Tensor to_batch(const std::vector<Image>& images, std::size_t first, std::size_t count) {
  const Image& image = images[first];
  const at::Tensor batch = at::empty({static_cast<std::int64_t>(count), image.channels, image.height, image.width}, at::kByte);
  std::uint8_t* out = batch.mutable_data_ptr<std::uint8_t>();
  for (std::size_t i = first; i < first + count; ++i) out = std::copy(images[i].pixels.begin(), images[i].pixels.end(), out);
  return batch;
}

/// Prepared batches in order, made ahead by threads of its own; no more than a few wait.
class BatchQueue {
 public:
  BatchQueue(const FeatureNetwork& network, const ImageSource& source, const CollectOptions& options)
      : network_(network), source_(source), size_(options.batch_size), batches_((source.count + size_ - 1) / size_) {
    const std::int64_t threads = std::clamp<std::int64_t>(options.threads, 1, batches_);
    ahead_ = threads + 1;
    for (std::int64_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~BatchQueue() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  std::int64_t batches() const { return batches_; }
  /// The next batch: parts of equal shape. Throws what reading it threw.
  std::vector<at::Tensor> next() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return done_.contains(given_); });
    Slot slot = std::move(done_.at(given_));
    done_.erase(given_++);
    lock.unlock();
    room_.notify_all();
    if (slot.error) std::rethrow_exception(slot.error);
    return std::move(slot.parts);
  }

 private:
  struct Slot {
    std::vector<at::Tensor> parts;
    std::exception_ptr error;
  };

  void work() {
    at::get_num_threads();   // LibTorch sets a new thread's number once, on first use
    omp_set_num_threads(1);  // of this thread alone; at::set_num_threads would change MKL's for all
    while (true) {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [this] { return stop_ || taken_ >= batches_ || taken_ < given_ + ahead_; });
      if (stop_ || taken_ >= batches_) return;
      const std::int64_t number = taken_++;
      lock.unlock();
      Slot slot;
      try {
        slot.parts = make(number);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      done_[number] = std::move(slot);
      lock.unlock();
      ready_.notify_all();
    }
  }
  // Images of one size are prepared together; the network's own size makes one batch of all, unless it takes images as they are.
  std::vector<at::Tensor> make(std::int64_t number) const {
    std::vector<Image> images;
    for (std::int64_t i = number * size_; i < std::min(source_.count, (number + 1) * size_); ++i) images.push_back(source_.read(i));
    const auto shape = [&](std::size_t i) { return std::tuple(images[i].channels, images[i].height, images[i].width); };
    std::vector<at::Tensor> prepared;
    for (std::size_t first = 0, last = 0; first < images.size(); first = last) {
      while (last < images.size() && shape(last) == shape(first)) ++last;
      prepared.push_back(network_.prepare(to_batch(images, first, last - first)));
    }
    const bool alike = std::all_of(prepared.begin(), prepared.end(),
                                   [&](const at::Tensor& each) { return each.sizes().slice(1) == prepared.front().sizes().slice(1); });
    if (!alike || prepared.size() == 1) return prepared;
    return {at::cat(prepared)};
  }

  const FeatureNetwork& network_;
  const ImageSource& source_;
  const std::int64_t size_, batches_;
  std::int64_t ahead_ = 0;
  std::mutex mutex_;  // guards all below
  std::condition_variable room_, ready_;
  bool stop_ = false;
  std::int64_t taken_ = 0, given_ = 0;
  std::map<std::int64_t, Slot> done_;
  std::vector<std::thread> threads_;
};

void check_finite(const at::Tensor& rows, const std::string& output, const ImageSource& source, std::int64_t first) {
  const at::Tensor finite = rows.isfinite().all(1);
  if (finite.all().item<bool>()) return;
  const std::int64_t index = first + finite.logical_not().nonzero()[0].item<std::int64_t>();
  throw Error(fmt::format("the features '{}' of image {} are not finite", output, source.name ? source.name(index) : std::to_string(index)));
}

}  // namespace

ImageSource folder_source(const std::string& folder, std::int64_t channels, std::int64_t limit) {
  auto files = std::make_shared<std::vector<std::filesystem::path>>(list_images(folder));
  if (limit > 0 && files->size() > static_cast<std::size_t>(limit)) files->resize(static_cast<std::size_t>(limit));
  ImageSource source;
  source.count = static_cast<std::int64_t>(files->size());
  source.read = [files, channels](std::int64_t i) { return read_image((*files)[static_cast<std::size_t>(i)], channels); };
  source.name = [files](std::int64_t i) { return (*files)[static_cast<std::size_t>(i)].string(); };
  return source;
}

ImageSource dataset_source(const Dataset& dataset, std::int64_t limit) {
  ImageSource source;
  source.count = limit > 0 ? std::min(limit, dataset.size()) : dataset.size();
  source.read = [&dataset](std::int64_t i) {
    Image image{dataset.channels(), dataset.height(), dataset.width(), {}};
    image.pixels.resize(static_cast<std::size_t>(image.channels * image.height * image.width));
    dataset.read(i, image.pixels);
    return image;
  };
  source.name = [&dataset](std::int64_t i) { return dataset.describe(i); };
  if (dataset.num_classes() > 0) {
    for (std::int64_t i = 0; i < source.count; ++i) source.labels.push_back(dataset.label(i));
  }
  return source;
}

ImageSource memory_source(const std::vector<Image>& images, std::vector<std::int64_t> labels) {
  ImageSource source;
  source.count = static_cast<std::int64_t>(images.size());
  source.read = [&images](std::int64_t i) { return images[static_cast<std::size_t>(i)]; };
  source.labels = std::move(labels);
  return source;
}

FeatureSet collect_features(FeatureNetwork& network, const ImageSource& source, const Wanted& wanted, const std::function<void(std::int64_t)>& on_progress,
                            const CollectOptions& options) {
  const torch::NoGradGuard no_grad;
  if (source.count < 1) throw Error("there are no images to take features of");
  std::map<OutputKind, std::string> names;
  for (const auto& kinds : {wanted.moments, wanted.rows}) {
    for (const OutputKind kind : kinds) {
      const bool chosen = kind == OutputKind::features && !wanted.output.empty();
      names[kind] = chosen ? network.output(wanted.output).name : network.output(kind).name;
    }
  }
  std::vector<std::string> outputs;
  for (const auto& [kind, name] : names) outputs.push_back(name);
  std::map<OutputKind, Moments> moments;
  std::map<OutputKind, std::vector<at::Tensor>> rows;
  std::int64_t done = 0;
  BatchQueue queue(network, source, options);
  for (std::int64_t batch = 0; batch < queue.batches(); ++batch) {
    for (const at::Tensor& part : queue.next()) {
      const NamedFeatures features = network.run(part, outputs);
      for (const auto& [kind, name] : names) {
        check_finite(features.at(name), name, source, done);
        if (wanted.moments.contains(kind)) moments[kind].add(features.at(name));
        if (wanted.rows.contains(kind)) rows[kind].push_back(features.at(name));
      }
      done += part.size(0);
      if (on_progress) on_progress(done);
    }
  }
  FeatureSet set{source.count, {}, {}, source.labels};
  for (const auto& [kind, sums] : moments) {
    FeatureStatistics statistics = sums.finish();
    statistics.network = network.name();
    statistics.weights_hash = network.weights_hash();
    statistics.preprocess = network.preprocess();
    set.moments[kind] = std::move(statistics);
  }
  for (const auto& [kind, parts] : rows) set.rows[kind] = at::cat(parts);
  return set;
}

FeatureSet select_images(const FeatureSet& set, const at::Tensor& index) {
  FeatureSet result;
  result.num_images = index.size(0);
  for (const auto& [kind, rows] : set.rows) {
    result.rows[kind] = rows.index_select(0, index);
    if (set.moments.contains(kind)) result.moments[kind] = feature_statistics(result.rows[kind]);
  }
  if (set.labels.empty()) return result;
  for (std::int64_t i = 0; i < index.size(0); ++i) result.labels.push_back(set.labels[static_cast<std::size_t>(index[i].item<std::int64_t>())]);
  return result;
}

}  // namespace uvit
