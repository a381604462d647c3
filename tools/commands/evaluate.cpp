#include <torch/torch.h>

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "commands/commands.h"
#include "commands/processes.h"
#include "commands/scoring_options.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "diffusion/time_law.h"
#include "train/evaluation.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  ScoringOptions scoring;
  std::optional<std::int64_t> count;
  std::int64_t agreement = 500;
  std::vector<std::int64_t> prompt_classes;
  std::int64_t loss_levels = 0;
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

/// The held-out loss at each of `levels` parts of the training times, least noise first.
std::vector<Score> held_out_losses(LoadedModel& loaded, const DataConfig& data, std::int64_t levels) {
  Config config = loaded.config;
  config.data = data;
  const HeldOut held_out(config);
  const auto schedule = make_schedule(config.diffusion);
  const TimeLaw law(config.diffusion, *schedule);
  const std::vector<double> losses = held_out.losses_by_level(*loaded.model, *schedule, find_parameterisation(config.diffusion.prediction), levels);
  std::vector<Score> scores;
  for (std::int64_t i = 0; i < levels; ++i) {
    const double middle = law((static_cast<double>(i) + 0.5) / static_cast<double>(levels));
    Score score;
    score.metric = fmt::format("held-out loss {}/{}@{}", i + 1, levels, held_out.size());
    score.value = losses[static_cast<std::size_t>(i)];
    score.recipe = {{"images", fmt::format("{}, test split, spread evenly", data.dataset)},
                    {"log SNR in the middle", fmt::format("{:.3f}", 2 * schedule->lambda(middle))},
                    {"loss", fmt::format("{} of {}, {}", config.diffusion.weighting, config.diffusion.prediction, config.diffusion.schedule)},
                    {"times", config.diffusion.time_sampling},
                    {"weights", loaded.weights},
                    {"weights_hash", loaded.weights_hash},
                    {"precision", config.train.precision},
                    {"seed", std::to_string(config.train.seed)}};
    if (!std::isfinite(score.value)) throw Error(fmt::format("{} is {}: the weights or the images are not finite", score.metric, score.value));
    scores.push_back(std::move(score));
  }
  return scores;
}

void run(const Arguments& arguments) {
  const Launch launch = launch_or_spawn(arguments.sampling.processes);
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  const std::unique_ptr<ProcessGroup> processes = join_processes(launch, loaded.config.train);
  const ScoringOptions& scoring = arguments.scoring;
  const auto network = scoring.load(loaded.config.eval.metric);
  const std::int64_t count = arguments.count.value_or(loaded.config.eval.num_images);
  if (arguments.agreement < 0) throw UsageError("--agreement: must not be negative");
  if (arguments.loss_levels < 0) throw UsageError("--loss-levels: must not be negative");
  if (count < 2) throw UsageError("-n: a score needs at least 2 images");

  DataConfig data = loaded.config.data;
  if (!scoring.data_path.empty()) data.path = scoring.data_path;
  const std::string& configured = loaded.config.eval.reference.empty() ? data.dataset : loaded.config.eval.reference;
  const std::string spec = arguments.reference.empty() ? configured : arguments.reference;
  Reference reference;
  processes->first_alone([&] { reference = load_reference(spec, *network, scoring.reference(), 0, data); });

  GenerateRequest request = make_request(loaded, count, {});
  add_prompts(arguments.sampling, loaded, request);
  request.processes = processes.get();
  if (!processes->is_first()) {
    draw(loaded, request, {});
    return;
  }
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
  if (arguments.loss_levels > 0)
    for (Score& score : held_out_losses(loaded, data, arguments.loss_levels)) scores.push_back(std::move(score));
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
  arguments->sampling.add_processes_to(*command);
  arguments->scoring.add_network_to(*command);
  arguments->scoring.add_metrics_to(*command);
  command->add_option("-n", arguments->count, "Images that are drawn and scored (default: eval.num_images of the run)");
  command->add_option("--agreement", arguments->agreement, "Images that the class agreement is taken over, the first of the n")->capture_default_str();
  command->add_option("--prompt-classes", arguments->prompt_classes, "Class that each prompt asks for, for the class agreement of a text model")->delimiter(',');
  command->add_option("--loss-levels", arguments->loss_levels,
                      "Also the held-out loss (train.eval_images test images) at each of this many noise levels, equal parts of the training times");
  command->add_option("--reference", arguments->reference,
                      "Folder of images, .npz of images or statistics, or a dataset (default: eval.reference of the run, else its training data)");
  command->add_option("--images", arguments->images, "Folder to write the images to (default: they are not written)");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
