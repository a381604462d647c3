#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "commands/processes.h"
#include "commands/scoring_options.h"
#include "core/error.h"

namespace uvit {
namespace {

struct Arguments {
  ScoringOptions scoring;
  std::string a, b, save, config;
  std::optional<std::int64_t> count;
  std::int64_t limit = 0, processes = 1;
};

/// One side of the comparison with the recipe of how its images came to be.
struct Side {
  Reference reference;
  Recipe recipe;
  std::vector<Image> images;  ///< that reference.images reads, for a checkpoint
};

/// Drawn by all processes; empty in all but the first.
Side draw_side(const Arguments& arguments, const std::string& spec, FeatureNetwork& network, const Wanted& wanted, ProcessGroup& processes) {
  SamplingOptions sampling;
  sampling.checkpoint = spec;
  sampling.config = arguments.config;
  LoadedModel loaded = load_for_sampling(sampling);
  const std::int64_t count = arguments.count.value_or(loaded.config.eval.num_images);
  if (count < 2) throw UsageError("-n: a score needs at least 2 images");
  GenerateRequest request = make_request(loaded, count, {});
  request.processes = &processes;
  if (!processes.is_first()) {
    draw(loaded, request, {});
    return {};
  }
  const bool keep = !arguments.scoring.memorisation.empty();
  DrawnSet drawn = draw_features(loaded, request, network, wanted, keep ? request.seeds.size() : 0);
  Side side{{std::move(drawn.set), spec, loaded.weights_hash, {}}, drawn_recipe(loaded, request, drawn.report), std::move(drawn.images)};
  return side;
}

Side load_side(const Arguments& arguments, const std::string& spec, FeatureNetwork& network, const Wanted& wanted, ProcessGroup& processes) {
  if (is_checkpoint(spec)) return draw_side(arguments, spec, network, wanted, processes);
  DataConfig data;
  data.dataset.clear();  // --data-path is meant for whichever dataset is named
  data.path = arguments.scoring.data_path;
  Side side;
  processes.first_alone([&] { side.reference = load_reference(spec, network, wanted, arguments.limit, data); });
  return side;
}

void run(const Arguments& arguments) {
  if (arguments.limit < 0) throw UsageError("--limit: must not be negative");
  const Launch launch = launch_or_spawn(arguments.processes);
  const std::unique_ptr<ProcessGroup> processes = join_processes(launch, TrainConfig{});
  const ScoringOptions& scoring = arguments.scoring;
  const auto network = scoring.load(EvalConfig{}.metric);
  Wanted wanted = scoring.generated();
  if (!arguments.save.empty()) wanted.moments.insert(OutputKind::features);
  Side a = load_side(arguments, arguments.a, *network, wanted, *processes);
  Side b = load_side(arguments, arguments.b, *network, scoring.reference(), *processes);
  if (!processes->is_first()) return;
  for (Side* side : {&a, &b}) {
    if (!side->images.empty()) side->reference.images = memory_source(side->images);
  }
  if (!arguments.save.empty()) write_statistics(arguments.save, a.reference.set.moments.at(OutputKind::features));

  Recipe recipe = network->recipe();
  recipe.merge(comparison_recipe(a.reference.set, b.reference));
  recipe.insert({{"images", a.reference.name}, {"images_hash", a.reference.hash}});
  recipe.merge(a.recipe);
  for (const auto& [key, value] : b.recipe) recipe["reference_" + key] = value;
  for (const Score& score : score_sets(scoring, *network, a.reference.set, a.reference.images, b.reference, recipe))
    fmt::print("{}\n", format_score(score));
}

}  // namespace

void add_fid_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("fid", "Frechet distance, and other metrics, between two sets of images");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("A", arguments->a, "The images judged: a folder, an .npz of images (arr_0) or statistics, a dataset (cifar10:test) or a checkpoint")
      ->required();
  command->add_option("B", arguments->b, "The reference, in the same forms")->required();
  arguments->scoring.add_network_to(*command);
  arguments->scoring.add_metrics_to(*command);
  command->add_option("--limit", arguments->limit, "Images used of each side at most; 0: all")->capture_default_str();
  command->add_option("-n", arguments->count, "Images drawn from a checkpoint (default: eval.num_images of the run)");
  command->add_option("--processes", arguments->processes, "Processes on this machine that share the drawing of images; the images are the same")
      ->check(CLI::Range(1, 1024));
  command->add_option("--config", arguments->config, "Configuration of a checkpoint that is a bare weight file");
  command->add_option("--save", arguments->save, "Write the statistics of A to this .npz");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
