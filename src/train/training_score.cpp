#include <torch/torch.h>

#include "train/training_score.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoint/autoencoder_file.h"
#include "core/error.h"
#include "data/image_io.h"
#include "io/json_field.h"
#include "io/json_lines.h"
#include "metrics/metric.h"
#include "samplers/generate.h"
#include "samplers/sample_recipe.h"
#include "train/interrupt.h"

namespace uvit {
namespace {

const std::vector<std::string> kMetrics = {"fid"};
constexpr const char* kInTraining = "in training";

}  // namespace

TrainingScore::TrainingScore(const Config& config, ProcessGroup& processes) : config_(config), processes_(processes) {
  if (config.model.context_dim > 0)
    throw Error("a text model has no score in training, for want of prompts: set eval.every_steps = 0 and score its checkpoints with `uvit evaluate`");
  processes_.first_alone([&] {
    network_ = load_feature_network(config.eval.metric);
    const std::string& reference = config.eval.reference.empty() ? config.data.dataset : config.eval.reference;
    reference_ = load_reference(reference, *network_, wanted_for(kMetrics), 0, config.data);
  });
}

std::optional<Score> TrainingScore::operator()(UViT& model, std::int64_t step, const std::string& weights) {
  const torch::NoGradGuard no_grad;
  GenerateRequest request;
  for (std::int64_t i = 0; i < config_.eval.n; ++i) {
    request.seeds.push_back(config_.sample.seed + static_cast<std::uint64_t>(i));
    if (config_.data.num_classes > 0) request.labels.push_back(i % config_.data.num_classes);
  }
  if (is_latent_dataset(config_.data.dataset))
    request.decode = make_latent_decoder(config_.data.autoencoder, config_.data.scale_factor, model.parameters().front().device());
  request.processes = &processes_;
  request.stop = interrupt_requested;
  std::optional<FeatureCollector> collector;
  if (network_) collector.emplace(*network_, wanted_for(kMetrics));
  const GenerateReport report = generate(model, config_, request, [&](std::size_t, const at::Tensor& sample) {
    const at::Tensor values = sample.to(torch::kCPU, torch::kFloat32).contiguous();
    const std::span<const float> pixels(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel()));
    collector->add({values.size(0), values.size(1), values.size(2), quantise(pixels)});
  });
  if (report.stopped) throw Interrupted();
  std::optional<Score> score;
  processes_.first_alone([&] {
    const FeatureSet drawn = collector->finish(request.labels);
    Recipe recipe = network_->recipe();
    recipe.merge(comparison_recipe(drawn, reference_));
    recipe.merge(sample_recipe(config_, report.nfe));
    recipe.insert({{"taken", kInTraining},
                   {"step", std::to_string(step)},
                   {"weights", weights},
                   {"labels", request.labels.empty() ? "none" : "every class in turn"},
                   {"seeds", fmt::format("{} to {}", request.seeds.front(), request.seeds.back())}});
    score = compute_metrics(kMetrics, *network_, "", drawn, reference_.set, recipe).front();
  });
  return score;
}

namespace {

/// The step of a score that training took; none for any other line.
std::optional<std::int64_t> step_taken(const nlohmann::ordered_json& score) {
  if (!score.is_object() || !score.contains("recipe") || !score["recipe"].is_object()) return std::nullopt;
  const nlohmann::ordered_json& recipe = score["recipe"];
  if (value_or<std::string>(recipe, "taken", "") != kInTraining) return std::nullopt;
  const std::string text = value_or<std::string>(recipe, "step", "");
  std::int64_t step = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), step);
  return result.ec == std::errc() ? std::optional(step) : std::nullopt;
}

}  // namespace

std::vector<TakenScore> TrainingScore::taken_before(const std::filesystem::path& scores) const {
  std::vector<TakenScore> taken;
  const std::string metric = fmt::format("{}@{}", metric_title("FID", network_->name(), ""), config_.eval.n);
  for_each_json_line(scores, [&](const nlohmann::ordered_json& score) {
    const auto step = step_taken(score);
    if (!step || value_or<std::string>(score, "metric", "") != metric || value_or<std::string>(score["recipe"], "reference_hash", "") != reference_.hash) return;
    taken.push_back({*step, value_or(score, "value", 0.0)});
  });
  return taken;
}

void drop_training_scores_beyond(const std::filesystem::path& scores, std::int64_t step) {
  keep_json_lines(scores, [step](const nlohmann::ordered_json& score) { return step_taken(score).value_or(0) <= step; });
}

}  // namespace uvit
