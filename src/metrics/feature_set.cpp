#include <torch/torch.h>

#include "metrics/feature_set.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include <algorithm>
#include <exception>

#include "core/error.h"
#include "core/ordered_prefetch.h"

namespace uvit {
namespace {

at::Tensor to_batch(const std::vector<Image>& images, std::size_t first, std::size_t count) {
  const Image& image = images[first];
  const at::Tensor batch = at::empty({static_cast<std::int64_t>(count), image.channels, image.height, image.width}, at::kByte);
  std::uint8_t* out = batch.mutable_data_ptr<std::uint8_t>();
  for (std::size_t i = first; i < first + count; ++i) out = std::copy(images[i].pixels.begin(), images[i].pixels.end(), out);
  return batch;
}

ImageShape shape_of(const Image& image) { return {image.channels, image.height, image.width}; }

/// Parts of equal shape, and the shapes that the images had before.
struct PreparedBatch {
  std::vector<at::Tensor> parts;
  std::set<ImageShape> shapes;
};

/// Images [first, last) of the source. Images of one size are prepared together; the network's own size makes one batch of all, unless it takes images
/// as they are.
void prepare_batch(const FeatureNetwork& network, const ImageSource& source, std::int64_t first_image, std::int64_t last_image, PreparedBatch& batch) {
  std::vector<Image> images;
  for (std::int64_t i = first_image; i < last_image; ++i) {
    images.push_back(source.read(i));
    batch.shapes.insert(shape_of(images.back()));
  }
  std::vector<at::Tensor>& prepared = batch.parts;
  for (std::size_t first = 0, last = 0; first < images.size(); first = last) {
    while (last < images.size() && shape_of(images[last]) == shape_of(images[first])) ++last;
    prepared.push_back(network.prepare(to_batch(images, first, last - first)));
  }
  const bool alike = std::all_of(prepared.begin(), prepared.end(),
                                 [&](const at::Tensor& each) { return each.sizes().slice(1) == prepared.front().sizes().slice(1); });
  if (alike && prepared.size() > 1) prepared = {at::cat(prepared)};
}

void check_finite(const at::Tensor& rows, const std::string& output, const std::function<std::string(std::int64_t)>& name, std::int64_t first) {
  const at::Tensor finite = rows.isfinite().all(1);
  if (finite.all().item<bool>()) return;
  const std::int64_t index = first + finite.logical_not().nonzero()[0].item<std::int64_t>();
  throw Error(fmt::format("the features '{}' of image {} are not finite", output, name ? name(index) : std::to_string(index)));
}

}  // namespace

std::string describe_shapes(const std::set<ImageShape>& shapes) {
  if (shapes.empty()) return "unknown";
  const auto side = [](const ImageShape& shape) { return fmt::format("{} x {}", shape[1], shape[2]); };
  const auto area = [](const ImageShape& a, const ImageShape& b) { return a[1] * a[2] < b[1] * b[2]; };
  const auto [smallest, largest] = std::minmax_element(shapes.begin(), shapes.end(), area);
  std::set<std::string> kinds;
  for (const ImageShape& shape : shapes) kinds.insert(shape[0] == 1 ? "grey" : shape[0] == 3 ? "RGB" : "RGBA");
  const bool one = std::all_of(shapes.begin(), shapes.end(), [&](const ImageShape& shape) { return side(shape) == side(*smallest); });
  return fmt::format("{} {}", one ? side(*smallest) : fmt::format("{} to {}", side(*smallest), side(*largest)), fmt::join(kinds, " and "));
}

FeatureCollector::FeatureCollector(FeatureNetwork& network, const Wanted& wanted, std::int64_t batch_size)
    : network_(network), wanted_(wanted), batch_size_(static_cast<std::size_t>(batch_size)) {
  for (const auto& kinds : {wanted.moments, wanted.rows}) {
    for (const OutputKind kind : kinds) {
      const bool chosen = kind == OutputKind::features && !wanted.output.empty();
      names_[kind] = chosen ? network.output(wanted.output).name : network.output(kind).name;
    }
  }
  for (const auto& [kind, name] : names_) outputs_.push_back(name);
}

void FeatureCollector::add(const Image& image) {
  if (!waiting_.empty() && shape_of(waiting_.front()) != shape_of(image)) flush();
  waiting_.push_back(image);
  shapes_.insert(shape_of(image));
  if (waiting_.size() == batch_size_) flush();
}

void FeatureCollector::flush() {
  if (waiting_.empty()) return;
  add_prepared(network_.prepare(to_batch(waiting_, 0, waiting_.size())));
  waiting_.clear();
}

void FeatureCollector::add_prepared(const at::Tensor& prepared, const std::function<std::string(std::int64_t)>& name) {
  const torch::NoGradGuard no_grad;
  const NamedFeatures features = network_.run(prepared, outputs_);
  for (const auto& [kind, output] : names_) {
    const at::Tensor& rows = features.at(output);
    check_finite(rows, output, name, count_);
    if (wanted_.moments.contains(kind)) moments_[kind].add(rows);
    if (wanted_.rows.contains(kind)) rows_[kind].push_back(rows);
  }
  count_ += prepared.size(0);
}

FeatureSet FeatureCollector::finish(std::vector<std::int64_t> labels) {
  flush();
  if (count_ < 1) throw Error("there are no images to take features of");
  FeatureSet set{count_, {}, {}, std::move(labels), shapes_};
  for (const auto& [kind, sums] : moments_) {
    FeatureStatistics statistics = sums.finish();
    statistics.network = network_.name();
    statistics.weights_hash = network_.weights_hash();
    statistics.preprocess = network_.preprocess();
    set.moments[kind] = std::move(statistics);
  }
  for (const auto& [kind, parts] : rows_) set.rows[kind] = at::cat(parts);
  return set;
}

FeatureSet collect_features(FeatureNetwork& network, const ImageSource& source, const Wanted& wanted, const std::function<void(std::int64_t)>& on_progress,
                            const CollectOptions& options) {
  if (source.count < 1) throw Error("there are no images to take features of");
  FeatureCollector collector(network, wanted, options.batch_size);
  std::set<ImageShape> shapes;
  const std::int64_t size = options.batch_size, batches = (source.count + size - 1) / size;
  const std::int64_t threads = std::clamp<std::int64_t>(options.threads, 1, batches);
  OrderedPrefetch<PreparedBatch> queue(
      [&](std::int64_t number, PreparedBatch& batch) {
        prepare_batch(network, source, number * size, std::min(source.count, (number + 1) * size), batch);
      },
      {threads, threads + 1, batches, [] {
         at::get_num_threads();   // LibTorch sets a new thread's number once, on first use
         omp_set_num_threads(1);  // of this thread alone; at::set_num_threads would change MKL's for all
       }});
  for (std::int64_t number = 0; number < batches; ++number) {
    auto& next = queue.front();
    if (next.error) std::rethrow_exception(next.error);
    const PreparedBatch batch = std::move(next.value);
    queue.pop();
    shapes.insert(batch.shapes.begin(), batch.shapes.end());
    for (const at::Tensor& part : batch.parts) {
      collector.add_prepared(part, source.name);
      if (on_progress) on_progress(collector.count());
    }
  }
  FeatureSet set = collector.finish(source.labels);
  set.shapes = std::move(shapes);
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
