#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "core/error.h"
#include "metrics/score.h"

namespace uvit {
namespace {

struct Arguments {
  std::string a, b, metric = EvalConfig{}.metric, save, path;
  std::int64_t limit = 0;
};

void run(const Arguments& arguments) {
  const FeatureNetworkRow& row = find_feature_network(arguments.metric);
  if (arguments.limit < 0) throw UsageError("--limit: must not be negative");
  const auto network = row.load();
  DataConfig data;
  data.dataset.clear();  // --data-path is meant for whichever dataset is named
  data.path = arguments.path;
  const Reference a = load_reference(arguments.a, row, *network, arguments.limit, data);
  const Reference b = load_reference(arguments.b, row, *network, arguments.limit, data);
  if (!arguments.save.empty()) write_statistics(arguments.save, a.statistics);

  const auto images = [](const Reference& side) { return side.statistics.num_images > 0 ? std::to_string(side.statistics.num_images) : "unknown"; };
  Score score;
  score.metric = fmt::format("FD[{}]@{}", row.name, images(a));
  score.value = frechet_distance(a.statistics, b.statistics);
  score.recipe = {{"num_images", images(a)},         {"images", a.name},       {"images_hash", a.hash},
                  {"reference", b.name},             {"reference_hash", b.hash}, {"reference_images", images(b)},
                  {"network", row.name},             {"network_hash", network->weights_hash()}, {"preprocess", row.preprocess}};
  fmt::print("{}\n", format_score(score));
}

}  // namespace

void add_fid_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("fid", "Frechet distance between two sets of images");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("A", arguments->a, "Folder of images, .npz of statistics, or a dataset (fashion_mnist, fashion_mnist:test)")->required();
  command->add_option("B", arguments->b, "The reference, in the same forms")->required();
  command->add_option("--metric", arguments->metric, "A row of `uvit list metrics`")->capture_default_str();
  command->add_option("--limit", arguments->limit, "Images used of each side at most; 0: all")->capture_default_str();
  command->add_option("--data-path", arguments->path, "Where a dataset that is named lies (default: its own default)");
  command->add_option("--save", arguments->save, "Write the statistics of A to this .npz");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
