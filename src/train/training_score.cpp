#include <torch/torch.h>

#include "train/training_score.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoint/autoencoder_file.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "data/image_io.h"
#include "metrics/metric.h"
#include "samplers/generate.h"

namespace uvit {
namespace {

const std::vector<std::string> kMetrics = {"fid"};

}  // namespace

TrainingScore::TrainingScore(const Config& config) : config_(config), network_(load_feature_network(config.eval.metric)) {
  if (config.model.context_dim > 0)
    throw Error("a text model has no score in training, for want of prompts: set eval.every_steps = 0 and score its checkpoints with `uvit evaluate`");
  const std::string& reference = config.eval.reference.empty() ? config.data.dataset : config.eval.reference;
  reference_ = load_reference(reference, *network_, wanted_for(kMetrics), 0, config.data);
}

Score TrainingScore::operator()(UViT& model, std::int64_t step, const std::string& weights) {
  const torch::NoGradGuard no_grad;
  GenerateRequest request;
  for (std::int64_t i = 0; i < config_.eval.n; ++i) {
    request.seeds.push_back(config_.sample.seed + static_cast<std::uint64_t>(i));
    if (config_.data.num_classes > 0) request.labels.push_back(i % config_.data.num_classes);
  }
  if (is_latent_dataset(config_.data.dataset))
    request.decode = make_latent_decoder(config_.data.autoencoder, config_.data.scale_factor, model.parameters().front().device());
  FeatureCollector collector(*network_, wanted_for(kMetrics));
  const GenerateReport report = generate(model, config_, request, [&](std::size_t, const at::Tensor& sample) {
    const at::Tensor values = sample.to(torch::kCPU, torch::kFloat32).contiguous();
    const std::span<const float> pixels(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel()));
    collector.add({values.size(0), values.size(1), values.size(2), quantise(pixels)});
  });
  const FeatureSet drawn = collector.finish(request.labels);
  Recipe recipe = network_->recipe();
  recipe.merge(comparison_recipe(drawn, reference_));
  recipe.insert({{"taken", "in training"},
                 {"step", std::to_string(step)},
                 {"weights", weights},
                 {"solver", config_.sample.solver},
                 {"num_steps", std::to_string(config_.sample.num_steps)},
                 {"nfe", std::to_string(report.nfe)},
                 {"guidance_scale", fmt::format("{} (w = {:g})", config_.sample.guidance_scale, config_.sample.guidance_scale - 1)},
                 {"precision", config_.sample.precision},
                 {"device", config_.train.device},
                 {"batch_size", std::to_string(config_.sample.batch_size)},
                 {"labels", request.labels.empty() ? "none" : "every class in turn"},
                 {"seeds", fmt::format("{} to {}", request.seeds.front(), request.seeds.back())}});
  return compute_metrics(kMetrics, *network_, "", drawn, reference_.set, recipe).front();
}

double best_training_score(const std::filesystem::path& scores, std::int64_t step) {
  double best = -1;
  if (!std::filesystem::exists(scores)) return best;
  std::istringstream stream(read_file(scores));
  for (std::string line; std::getline(stream, line);) {
    const auto score = nlohmann::json::parse(line, nullptr, false);
    if (!score.is_object() || !score.contains("recipe") || score["recipe"].value("taken", "") != "in training") continue;
    const double value = score.value("value", -1.0);
    if (std::stoll(score["recipe"].value("step", "0")) <= step && value >= 0 && (best < 0 || value < best)) best = value;
  }
  return best;
}

}  // namespace uvit
