#include <torch/torch.h>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "diffusion/loss.h"
#include "diffusion/autocast.h"
#include "diffusion/time_law.h"
#include "train/evaluation.h"
#include "train/interrupt.h"

namespace uvit {

WeightsInPlace::WeightsInPlace(const NamedTensors& parameters, const NamedTensors& weights) : parameters_(parameters) {
  const torch::NoGradGuard no_grad;
  TORCH_CHECK(parameters.size() == weights.size(), "WeightsInPlace: ", parameters.size(), " parameters for ", weights.size(), " weights");
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    kept_.push_back(parameters_[i].second.detach());
    parameters_[i].second.set_data(weights[i].second);
  }
}

WeightsInPlace::~WeightsInPlace() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].second.set_data(kept_[i]);
}

Network bind_network(UViT& model, const std::string& precision, const at::Tensor& labels, const at::Tensor& context, at::Tensor* aligned) {
  return [&model, precision, labels, context, aligned](const at::Tensor& x, const at::Tensor& network_time) {
    const AutocastGuard autocast(precision, x.device().type());
    return model.forward(x, network_time, labels, context, aligned);
  };
}

namespace {

/// Latents, one draw of each posterior.
at::Tensor read_latents(const Dataset& dataset, const std::vector<std::int64_t>& positions, std::uint64_t seed) {
  at::Tensor latents = torch::empty({static_cast<std::int64_t>(positions.size()), dataset.channels(), dataset.height(), dataset.width()}, torch::kFloat32);
  const std::int64_t values = dataset.channels() * dataset.height() * dataset.width();
  for (std::size_t i = 0; i < positions.size(); ++i)
    dataset.read_values(positions[i], {.seed = seed, .sample = static_cast<std::uint64_t>(positions[i])},
                        {latents.data_ptr<float>() + static_cast<std::int64_t>(i) * values, static_cast<std::size_t>(values)});
  return latents;
}

}  // namespace

at::Tensor read_contexts(const Dataset& dataset, const std::vector<std::int64_t>& positions) {
  at::Tensor contexts = torch::empty({static_cast<std::int64_t>(positions.size()), dataset.context_tokens(), dataset.context_dim()}, torch::kFloat32);
  const std::int64_t values = dataset.context_tokens() * dataset.context_dim();
  for (std::size_t i = 0; i < positions.size(); ++i)
    dataset.read_context(positions[i], {.noise = false},
                         {contexts.data_ptr<float>() + static_cast<std::int64_t>(i) * values, static_cast<std::size_t>(values)});
  return contexts;
}

HeldOut::HeldOut(const Config& config) : config_(config) {
  const std::unique_ptr<Dataset> dataset = open_dataset(config.data, Split::test);
  const std::int64_t wanted = std::min(config.train.eval_images, dataset->size());
  const std::int64_t values = dataset->channels() * dataset->height() * dataset->width();
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(wanted * values));
  for (std::int64_t i = 0; i < wanted; ++i) {
    const std::int64_t position = i * dataset->size() / wanted;  // spread over the split: a folder's images lie class by class
    const std::size_t place = positions_.size() * static_cast<std::size_t>(values);
    try {
      if (!dataset->latent()) dataset->read(position, std::span(pixels).subspan(place, static_cast<std::size_t>(values)));
    } catch (const Error& error) {
      if (config.data.on_error != "skip") throw;
      spdlog::warn("held-out image left out: {}", error.what());
      continue;
    }
    positions_.push_back(position);
    labels_.push_back(dataset->label(position));
  }
  if (positions_.empty()) throw Error("the test split has no image for the held-out loss: set train.eval_every = 0 to train without it");
  const auto n = static_cast<std::int64_t>(positions_.size());
  if (config.model.context_dim > 0) contexts_ = read_contexts(*dataset, positions_);
  if (dataset->latent()) {
    images_ = read_latents(*dataset, positions_, config.train.seed);
    return;
  }
  images_ = torch::empty({n, dataset->channels(), dataset->height(), dataset->width()}, torch::kUInt8);
  std::copy_n(pixels.begin(), n * values, images_.data_ptr<std::uint8_t>());
}

double HeldOut::loss(UViT& model, const Schedule& schedule, const Parameterisation& parameterisation, ProcessGroup& processes) const {
  return mean_loss(model, schedule, parameterisation, 0, 1, processes);
}

std::vector<double> HeldOut::losses_by_level(UViT& model, const Schedule& schedule, const Parameterisation& parameterisation,
                                             std::int64_t parts) const {
  std::vector<double> losses;
  ProcessGroup alone;
  for (std::int64_t part = 0; part < parts; ++part) losses.push_back(mean_loss(model, schedule, parameterisation, part, parts, alone));
  return losses;
}

double HeldOut::mean_loss(UViT& model, const Schedule& schedule, const Parameterisation& parameterisation, std::int64_t part,
                          std::int64_t parts, ProcessGroup& processes) const {
  const torch::NoGradGuard no_grad;
  const at::Device device = model.parameters().front().device();
  const std::int64_t n = images_.size(0), values = images_.numel() / n;
  const std::int64_t micro = config_.train.micro_batch_size > 0 ? config_.train.micro_batch_size : config_.train.batch_size;
  const TimeLaw law(config_.diffusion, schedule);
  const WeightingRow& weighting = find_weighting(config_.diffusion.weighting);
  at::Tensor sums = at::zeros({(n + micro - 1) / micro}, at::kDouble);  // of each micro-batch, which one process fills in
  bool interrupted = false;
  for (std::int64_t batch = processes.rank(); batch < sums.size(0); batch += processes.size()) {
    interrupted = interrupt_requested();
    if (interrupted) break;
    const std::int64_t first = batch * micro;
    const std::int64_t size = std::min(micro, n - first);
    const at::Tensor images = images_.narrow(0, first, size);
    const at::Tensor x0 = images.scalar_type() == torch::kUInt8 ? images.to(torch::kFloat32).div_(127.5).sub_(1) : images;
    at::Tensor eps = torch::empty_like(x0);
    std::vector<double> t;
    for (std::int64_t i = 0; i < size; ++i) {
      const auto position = static_cast<std::uint64_t>(positions_[static_cast<std::size_t>(first + i)]);
      RandomStream(config_.train.seed, RandomPurpose::evaluation, position, 0)
          .fill_normal({eps.data_ptr<float>() + i * values, static_cast<std::size_t>(values)});
      const double u = RandomStream(config_.train.seed, RandomPurpose::evaluation, position, 1).uniform();
      t.push_back(law((static_cast<double>(part) + u) / static_cast<double>(parts)));
    }
    at::Tensor labels;
    if (config_.data.num_classes > 0)
      labels = torch::tensor(std::vector<std::int64_t>(labels_.begin() + first, labels_.begin() + first + size), torch::kInt64).to(device);
    const at::Tensor context = contexts_.defined() ? contexts_.narrow(0, first, size).to(device) : at::Tensor();
    const Network network = bind_network(model, config_.train.precision, labels, context);
    sums[batch] = diffusion_loss(network, x0.to(device), eps.to(device), t, schedule, parameterisation, weighting).sum(torch::kFloat64).item<double>();
  }
  if (processes.any(interrupted)) throw Interrupted();
  processes.sum(sums);
  double sum = 0;
  for (std::int64_t batch = 0; batch < sums.size(0); ++batch) sum += sums[batch].item<double>();
  return sum / static_cast<double>(n);
}

}  // namespace uvit
