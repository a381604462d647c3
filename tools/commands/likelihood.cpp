#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "commands/commands.h"
#include "commands/sampling_options.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/random.h"
#include "data/dataset.h"
#include "diffusion/autocast.h"
#include "diffusion/parameterisation.h"
#include "samplers/likelihood.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  std::int64_t count = 100;
  std::string split = "test", path;
};

/// One batch of the data: dequantised images, the probes of the divergence, labels.
struct Batch {
  at::Tensor x, probe, labels;
};

Batch read_batch(const Dataset& dataset, std::int64_t first, std::int64_t size, std::uint64_t seed, bool labelled) {
  const std::int64_t values = dataset.channels() * dataset.height() * dataset.width();
  Batch batch;
  batch.x = torch::empty({size, dataset.channels(), dataset.height(), dataset.width()}, at::kFloat);
  batch.probe = torch::empty_like(batch.x);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(values));
  std::vector<float> fraction(pixels.size());
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto index = static_cast<std::uint64_t>(first + i);
    dataset.read(first + i, pixels);
    RandomStream(seed, RandomPurpose::evaluation, index, 2).fill_uniform(fraction, 0, 1);
    float* out = batch.x.data_ptr<float>() + i * values;
    for (std::size_t v = 0; v < pixels.size(); ++v) out[v] = (static_cast<float>(pixels[v]) + fraction[v]) / 127.5F - 1;
    RandomStream(seed, RandomPurpose::evaluation, index, 3).fill_normal({batch.probe.data_ptr<float>() + i * values, pixels.size()});
    labels.push_back(dataset.label(first + i));
  }
  if (labelled) batch.labels = at::tensor(labels, at::kLong);
  return batch;
}

void run(const Arguments& arguments) {
  if (arguments.count < 2) throw UsageError("-n: an average needs at least 2 images");
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  DataConfig data = loaded.config.data;
  if (!arguments.path.empty()) data.path = arguments.path;
  const auto dataset = open_dataset(data, arguments.split == "train" ? Split::train : Split::test);
  const std::int64_t count = std::min(arguments.count, dataset->size());
  const SampleConfig& sample = loaded.config.sample;
  const auto schedule = make_schedule(loaded.config.diffusion);
  const at::Device device = loaded.model->parameters().front().device();
  const double low = sample.t_end > 0 ? sample.t_end : likelihood_start(*schedule);
  const AutocastGuard autocast(sample.precision, device.type());

  Progress progress("likelihood", count, "images");
  std::vector<double> bits;
  std::int64_t nfe = 0;
  for (std::int64_t first = 0; first < count; first += sample.batch_size) {
    const Batch batch = read_batch(*dataset, first, std::min(sample.batch_size, count - first), sample.seed, data.num_classes > 0);
    const at::Tensor y = batch.labels.defined() ? batch.labels.to(device) : at::Tensor();
    const Network network = [&](const at::Tensor& x, const at::Tensor& t) { return loaded.model->forward(x, t, y); };
    const Denoiser denoiser = make_denoiser(network, *schedule, find_parameterisation(loaded.config.diffusion.prediction));
    const LikelihoodResult result = log_likelihood(denoiser, *schedule, batch.x.to(device), batch.probe.to(device), low, sample.num_steps);
    for (const double log_p : result.log_likelihood) bits.push_back(bits_per_dim(log_p, batch.x.numel() / batch.x.size(0)));
    nfe = result.nfe;
    progress.update(static_cast<std::int64_t>(bits.size()));
  }
  progress.finish();
  double mean = 0, square = 0;
  for (const double b : bits) mean += b / static_cast<double>(bits.size());
  for (const double b : bits) square += (b - mean) * (b - mean) / static_cast<double>(bits.size() - 1);
  fmt::print("bits/dim@{} = {:.4f} +- {:.4f}  ({} {} images, labels {}, probability flow from t = {:g}, Heun, {} steps, NFE {}, one probe an image, weights {}, "
             "precision {}, seed {})\n",
             bits.size(), mean, std::sqrt(square / static_cast<double>(bits.size())), data.dataset, arguments.split, data.num_classes > 0 ? "given" : "none",
             low, sample.num_steps, nfe, loaded.weights, sample.precision, sample.seed);
}

}  // namespace

void add_likelihood_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("likelihood", "Bits per dimension of real images by the probability-flow ODE");
  auto arguments = std::make_shared<Arguments>();
  arguments->sampling.add_to(*command);
  command->add_option("-n", arguments->count, "Images, the first of the split")->capture_default_str();
  command->add_option("--split", arguments->split, "test or train")->check(CLI::IsMember({"test", "train"}))->capture_default_str();
  command->add_option("--data-path", arguments->path, "Where the dataset lies (default: as the run had it)");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
