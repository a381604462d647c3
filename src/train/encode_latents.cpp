#include <torch/torch.h>

#include "train/encode_latents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "checkpoint/autoencoder_file.h"
#include "checkpoint/tensor_convert.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/progress.h"
#include "io/safetensors.h"
#include "train/interrupt.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// Sums over images and pixels of the moments' mean m and of m^2 + sigma^2, a channel each: a draw's first two moments.
class Statistics {
 public:
  explicit Statistics(std::int64_t channels) : first_(torch::zeros({channels}, at::kDouble)), second_(torch::zeros({channels}, at::kDouble)) {}
  /// @param moments [n, 2 C, h, w] float32
  void add(const at::Tensor& moments) {
    constexpr std::int64_t kChunk = 256;  // images widened to double at a time
    for (std::int64_t i = 0; i < moments.size(0); i += kChunk) {
      const auto parts = moments.narrow(0, i, std::min(kChunk, moments.size(0) - i)).to(at::kDouble).chunk(2, 1);
      const at::Tensor variance = at::exp(at::clamp(parts[1], -30.0, 20.0));
      first_ += parts[0].sum({0, 2, 3});
      second_ += (parts[0].square() + variance).sum({0, 2, 3});
      count_ += parts[0].size(0) * parts[0].size(2) * parts[0].size(3);
    }
  }
  void finish(LatentIndex& index) const {
    for (std::int64_t c = 0; c < first_.numel(); ++c) {
      const double n = static_cast<double>(count_), mean = first_[c].item<double>() / n, square = second_[c].item<double>() / n;
      index.mean.push_back(index.scale_factor * mean);
      index.std.push_back(index.scale_factor * std::sqrt(std::max(0.0, square - mean * mean)));
    }
  }

 private:
  at::Tensor first_, second_;
  std::int64_t count_ = 0;
};

/// Where DIR was begun: the same settings, or an Error that says which differ.
void check_same(const LatentIndex& begun, const LatentIndex& now, const fs::path& folder) {
  const auto differ = [&](const char* what) {
    return Error(fmt::format("{} was begun with another {}: give the same, or another folder", folder.string(), what));
  };
  if (begun.autoencoder != now.autoencoder) throw differ("autoencoder");
  if (begun.scale_factor != now.scale_factor) throw differ("scale factor");
  if (begun.flips != now.flips) throw differ("setting of --flip");
  if (begun.shard_size != now.shard_size) throw differ("shard size");
  if (begun.count != now.count || begun.source != now.source) throw differ("dataset");
}

class Encoder {
 public:
  Encoder(const EncodeRequest& request, const Dataset& dataset, AutoencoderKL& autoencoder)
      : request_(request), dataset_(dataset), autoencoder_(autoencoder), device_(request.device) {}

  /// Moments of images first .. first + n, [n, 2 C, h, w] on the CPU, through batches of one size.
  at::Tensor moments(std::int64_t first, std::int64_t n, bool flip, const std::function<void(std::int64_t)>& on_batch) const {
    const std::int64_t values = dataset_.channels() * dataset_.height() * dataset_.width(), batch = request_.batch_size;
    std::vector<at::Tensor> parts;
    for (std::int64_t done = 0; done < n && !interrupt_requested(); done += batch) {
      at::Tensor images = torch::zeros({batch, dataset_.channels(), dataset_.height(), dataset_.width()}, at::kFloat);
      const std::int64_t count = std::min(batch, n - done);
      for (std::int64_t i = 0; i < count; ++i)
        dataset_.read_values(first + done + i, {.flip = flip, .noise = false}, {images.data_ptr<float>() + i * values, static_cast<std::size_t>(values)});
      parts.push_back(autoencoder_.moments(images.to(device_)).to(at::kCPU, at::kFloat).narrow(0, 0, count));
      on_batch(done + count);
    }
    return parts.empty() ? at::Tensor() : at::cat(parts);
  }

  TensorFile shard(std::int64_t first, std::int64_t n, Progress& progress) const {
    const auto show = [&](std::int64_t before) { return [&progress, before](std::int64_t done) { progress.update(before + done); }; };
    const std::int64_t passes = request_.flips ? 2 : 1;
    NamedTensors tensors = {{"moments", moments(first, n, false, show(first * passes))}};
    if (request_.flips) tensors.emplace_back("moments_flipped", moments(first, n, true, show(first * passes + n)));
    at::Tensor labels = torch::empty({n}, at::kLong);
    for (std::int64_t i = 0; i < n; ++i) labels.data_ptr<std::int64_t>()[i] = dataset_.label(first + i);
    tensors.emplace_back("labels", labels);
    if (interrupt_requested()) return {};
    return to_tensor_file(tensors);
  }

 private:
  const EncodeRequest& request_;
  const Dataset& dataset_;
  AutoencoderKL& autoencoder_;
  at::Device device_;
};

LatentIndex make_index(const EncodeRequest& request, const Dataset& dataset, const AutoencoderKL& autoencoder, const std::string& hash) {
  const AutoencoderOptions& o = autoencoder.options();
  if (dataset.height() % o.downscale() != 0 || dataset.width() % o.downscale() != 0 || dataset.channels() != o.in_channels)
    throw Error(fmt::format("the autoencoder takes {} channels and sides that are multiples of {}, and the images are {} x {} x {}: set --image-size and "
                            "--channels", o.in_channels, o.downscale(), dataset.channels(), dataset.height(), dataset.width()));
  LatentIndex index;
  index.count = dataset.size();
  index.shard_size = request.shard_size;
  index.channels = o.embed_dim;
  index.height = dataset.height() / o.downscale();
  index.width = dataset.width() / o.downscale();
  index.scale_factor = o.scale_factor;
  index.flips = request.flips;
  index.autoencoder = hash;
  index.source = fmt::format("{} {} x {} x {}", request.data.dataset, dataset.channels(), dataset.height(), dataset.width());
  index.num_classes = dataset.num_classes();
  index.class_names = dataset.class_names();
  return index;
}

fs::path weights_of(const fs::path& autoencoder) {
  return fs::is_directory(autoencoder) ? autoencoder / "diffusion_pytorch_model.safetensors" : autoencoder;
}

}  // namespace

LatentIndex encode_latents(const EncodeRequest& request) {
  if (request.shard_size < 1 || request.batch_size < 1) throw Error("encode: shard size and batch size must be at least 1");
  const torch::NoGradGuard no_grad;
  const std::unique_ptr<Dataset> dataset = open_dataset(request.data, request.split);
  if (dataset->latent()) throw Error(fmt::format("dataset {} holds latents already", request.data.dataset));
  const auto autoencoder = load_autoencoder(request.autoencoder, request.scale_factor);
  LatentIndex index = make_index(request, *dataset, *autoencoder, sha256_of_file(weights_of(request.autoencoder)));
  const fs::path folder = split_folder(request.out, request.split == Split::train);
  if (fs::exists(folder / "latents.json")) {
    const LatentIndex begun = read_latent_index(folder);
    check_same(begun, index, folder);
    if (!begun.mean.empty()) return begun;
  }
  make_directories(folder);
  write_latent_index(folder, index);
  autoencoder->to(at::Device(request.device));

  const Encoder encoder(request, *dataset, *autoencoder);
  Statistics statistics(index.channels);
  Progress progress("encode", index.count * (request.flips ? 2 : 1), "images");
  for (std::int64_t first = 0; first < index.count; first += index.shard_size) {
    const fs::path path = shard_path(folder, "latents", first / index.shard_size);
    if (!fs::exists(path)) {
      const TensorFile shard = encoder.shard(first, std::min(index.shard_size, index.count - first), progress);
      if (shard.tensors.empty()) return index;
      write_safetensors(path, shard);
    }
    statistics.add(to_torch(SafetensorsReader(path).read("moments")));
  }
  statistics.finish(index);
  write_latent_index(folder, index);
  return index;
}

}  // namespace uvit
