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
  ScoringOptions scoring;
  std::string data, config, save;
  std::int64_t limit = 0;
};

void run(const Arguments& arguments) {
  if (arguments.limit < 0) throw UsageError("--limit: must not be negative");
  if (const std::filesystem::path folder = std::filesystem::path(arguments.save).parent_path(); !folder.empty()) make_directories(folder);
  const auto network = arguments.scoring.load(EvalConfig{}.metric);
  DataConfig data;
  data.dataset.clear();
  std::string spec = arguments.data;
  if (spec.ends_with(".toml")) {
    data = load_config(spec).data;
    spec = data.dataset;
  }
  if (!arguments.scoring.data_path.empty()) data.path = arguments.scoring.data_path;
  const Reference reference = load_reference(spec, *network, arguments.scoring.reference(), arguments.limit, data);
  const FeatureStatistics& statistics = reference.set.moments.at(OutputKind::features);
  write_statistics(arguments.save, statistics);
  fmt::print("{}: mean and covariance of {} features of {} images of {} ({}), {} with weights {:.12}, {}; hash {:.12}\n", arguments.save,
             statistics.mu.size(0), statistics.num_images, reference.name, describe_shapes(reference.set.shapes), network->name(),
             network->weights_hash(), network->preprocess(), reference.hash);
  if (statistics.num_images <= statistics.mu.size(0)) {
    fmt::print("these are fewer images than features: distances to them come out far above those to many images\n");
  }
}

}  // namespace

void add_fid_stats_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("fid-stats", "Statistics of reference images, for fid and evaluate (and pytorch-fid)");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DATA", arguments->data, "A folder, an .npz of images (arr_0), a dataset (cifar10:test), or a configuration: its training data")->required();
  command->add_option("-o,--out", arguments->save, "The .npz: mu and sigma, as pytorch-fid reads them, and what they are of")->required();
  arguments->scoring.add_network_to(*command);
  command->add_option("--output", arguments->scoring.output, "Output of the network (default: its first)");
  command->add_option("--limit", arguments->limit, "Images used at most; 0: all")->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
