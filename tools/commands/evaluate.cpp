#include <torch/torch.h>

#include <fmt/format.h>

#include <filesystem>

#include "commands/commands.h"
#include "commands/scoring_options.h"
#include "core/atomic_file.h"
#include "core/error.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  ScoringOptions scoring;
  std::optional<std::int64_t> count;
  std::int64_t agreement = 500;
  std::vector<std::int64_t> prompt_classes;
  std::string reference, images;
};

/// The class that each image is asked for: its label, or that of its prompt.
std::vector<std::int64_t> asked_classes(const Arguments& arguments, const GenerateRequest& request) {
  if (arguments.prompt_classes.empty()) return request.labels;
  const std::size_t prompts = read_prompts(arguments.sampling).size(), images = request.seeds.size();
  if (prompts != arguments.prompt_classes.size()) throw UsageError(fmt::format("--prompt-classes: one class for each of the {} prompts", prompts));
  std::vector<std::int64_t> classes;
  for (std::size_t i = 0; i < images; ++i) classes.push_back(arguments.prompt_classes[prompt_of_image(i, images, prompts)]);
  return classes;
}

/// Class agreement of the first images: the share that the network assigns to the class asked for. Empty for a model or a network without classes.
std::optional<Score> score_agreement(FeatureNetwork& network, const std::vector<Image>& images, const std::vector<std::int64_t>& asked, std::int64_t limit) {
  const std::vector<FeatureOutput> outputs = network.outputs();
  const bool classifies = std::any_of(outputs.begin(), outputs.end(), [](const FeatureOutput& each) { return each.kind == OutputKind::logits; });
  const auto count = static_cast<std::ptrdiff_t>(std::min<std::size_t>(images.size(), static_cast<std::size_t>(limit)));
  if (asked.empty() || count == 0 || !classifies || network.name() == "inception") return std::nullopt;  // Inception's classes are ImageNet's
  Score score;
  score.metric = fmt::format("class agreement[{}]@{}", network.name(), count);
  score.value = class_agreement(network, {images.begin(), images.begin() + count}, {asked.begin(), asked.begin() + count});
  return score;
}

void run(const Arguments& arguments) {
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  const ScoringOptions& scoring = arguments.scoring;
  const auto network = scoring.load(loaded.config.eval.metric);
  const std::int64_t count = arguments.count.value_or(loaded.config.eval.num_images);
  if (arguments.agreement < 0) throw UsageError("--agreement: must not be negative");
  if (count < 2) throw UsageError("-n: a score needs at least 2 images");

  DataConfig data = loaded.config.data;
  if (!scoring.data_path.empty()) data.path = scoring.data_path;
  const std::string& configured = loaded.config.eval.reference.empty() ? data.dataset : loaded.config.eval.reference;
  const std::string spec = arguments.reference.empty() ? configured : arguments.reference;
  const Reference reference = load_reference(spec, *network, scoring.reference(), 0, data);

  GenerateRequest request = make_request(loaded, count, {});
  add_prompts(arguments.sampling, loaded, request);
  const std::vector<std::int64_t> asked = asked_classes(arguments, request);
  if (!arguments.images.empty()) make_directories(arguments.images);
  const std::size_t keep = scoring.memorisation.empty() ? static_cast<std::size_t>(arguments.agreement) : request.seeds.size();
  const DrawnSet drawn = draw_features(loaded, request, *network, scoring.generated(), keep, [&](std::size_t index, const Image& image) {
    if (!arguments.images.empty()) write_png(std::filesystem::path(arguments.images) / fmt::format("seed-{:06}.png", request.seeds[index]), image);
  });

  Recipe recipe = drawn_recipe(loaded, request, drawn.report);
  if (const auto prompts = read_prompts(arguments.sampling); !prompts.empty()) recipe.insert({"prompts", fmt::format("{}", fmt::join(prompts, " | "))});
  recipe.merge(network->recipe());
  recipe.merge(comparison_recipe(drawn.set, reference));
  std::vector<Score> scores = score_sets(scoring, *network, drawn.set, memory_source(drawn.images), reference, recipe);
  if (auto agreement = score_agreement(*network, drawn.images, asked, arguments.agreement)) {
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

void add_evaluate_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("evaluate", "Draw images from a checkpoint and score them; scores go to the run's scores.jsonl")->alias("score");
  auto arguments = std::make_shared<Arguments>();
  arguments->scoring.bars.resamples = 50;
  arguments->sampling.add_to(*command);
  arguments->scoring.add_network_to(*command);
  arguments->scoring.add_metrics_to(*command);
  command->add_option("-n", arguments->count, "Images that are drawn and scored (default: eval.num_images of the run)");
  command->add_option("--agreement", arguments->agreement, "Images that the class agreement is taken over, the first of the n")->capture_default_str();
  command->add_option("--prompt-classes", arguments->prompt_classes, "Class that each prompt asks for, for the class agreement of a text model")->delimiter(',');
  command->add_option("--reference", arguments->reference,
                      "Folder of images, .npz of images or statistics, or a dataset (default: eval.reference of the run, else its training data)");
  command->add_option("--images", arguments->images, "Folder to write the images to (default: they are not written)");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
