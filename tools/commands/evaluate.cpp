#include <torch/torch.h>

#include <fmt/format.h>

#include <filesystem>

#include "commands/commands.h"
#include "commands/sampling_options.h"
#include "core/error.h"
#include "core/progress.h"
#include "metrics/metric.h"
#include "metrics/reference.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  std::optional<std::int64_t> count;
  std::int64_t agreement = 500;
  std::optional<std::string> metric;
  std::string reference, path;
};

/// Class agreement of the first images: the share that the network assigns to the class asked for. Empty for a model without classes.
std::optional<Score> score_agreement(FeatureNetwork& network, const std::vector<Image>& images, const GenerateRequest& request, std::int64_t limit) {
  const auto count = static_cast<std::ptrdiff_t>(std::min<std::size_t>(images.size(), static_cast<std::size_t>(limit)));
  if (request.labels.empty() || count == 0) return std::nullopt;
  Score score;
  score.metric = fmt::format("class agreement[{}]@{}", network.name(), count);
  score.value = class_agreement(network, {images.begin(), images.begin() + count}, {request.labels.begin(), request.labels.begin() + count});
  return score;
}

void run(const Arguments& arguments) {
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  const auto network = load_feature_network(arguments.metric.value_or(loaded.config.eval.metric));
  const std::vector<std::string> metrics = {"fid"};
  const std::int64_t count = arguments.count.value_or(loaded.config.eval.num_images);
  if (arguments.agreement < 0) throw UsageError("--agreement: must not be negative");
  if (count < 2) throw UsageError("-n: a score needs at least 2 images");

  DataConfig data = loaded.config.data;
  if (!arguments.path.empty()) data.path = arguments.path;
  const std::string spec = arguments.reference.empty() ? data.dataset : arguments.reference;
  const Reference reference = load_reference(spec, *network, wanted_for(metrics), 0, data);

  GenerateRequest request = make_request(loaded, count, {});
  add_prompts(arguments.sampling, loaded, request);
  std::vector<Image> images(request.seeds.size());
  const GenerateReport report = draw(loaded, request, [&](std::size_t index, const Image& image) { images[index] = image; });
  const FeatureSet generated = collect_features(*network, memory_source(images, request.labels), wanted_for(metrics));

  Recipe recipe = sampling_recipe(loaded, report);
  recipe.merge(network->recipe());
  recipe.merge(comparison_recipe(generated, reference));
  recipe.insert({{"labels", request.labels.empty() ? "none" : "every class in turn"},
                 {"seeds", fmt::format("{} to {}", request.seeds.front(), request.seeds.back())}});
  std::vector<Score> scores = compute_metrics(metrics, *network, "", generated, reference.set, recipe);
  if (auto agreement = score_agreement(*network, images, request, arguments.agreement)) {
    agreement->recipe = recipe;
    scores.push_back(*agreement);
  }
  const std::filesystem::path run_folder = std::filesystem::is_directory(arguments.sampling.checkpoint) ? run_of(loaded.file) : std::filesystem::path{};
  for (const Score& score : scores) {
    fmt::print("{}\n", format_score(score));
    if (!run_folder.empty()) append_score(run_folder.string(), score);
  }
}

}  // namespace

void add_score_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("score", "Draw images from a checkpoint and score them: Frechet distance and class agreement");
  auto arguments = std::make_shared<Arguments>();
  arguments->sampling.add_to(*command);
  command->add_option("-n", arguments->count, "Images that the distance is taken over (default: eval.num_images of the run)");
  command->add_option("--agreement", arguments->agreement, "Images that the class agreement is taken over, the first of the n")->capture_default_str();
  command->add_option("--metric", arguments->metric, "Feature network: a row of `uvit list networks` (default: eval.metric of the run)");
  command->add_option("--reference", arguments->reference, "Folder of images, .npz of statistics, or a dataset (default: the run's own training data)");
  command->add_option("--data-path", arguments->path, "Where the dataset lies (default: as the run had it)");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
