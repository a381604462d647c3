#include <torch/torch.h>

#include <fmt/format.h>

#include "attention/device.h"
#include "commands/commands.h"
#include "core/error.h"
#include "metrics/metric.h"
#include "metrics/reference.h"

namespace uvit {
namespace {

struct Arguments {
  std::string a, b, network = EvalConfig{}.metric, save, path;
  NetworkOptions options;
  std::int64_t limit = 0;
};

void run(const Arguments& arguments) {
  if (arguments.limit < 0) throw UsageError("--limit: must not be negative");
  select_device(arguments.options.device);  // says in one line what is missing
  const auto network = load_feature_network(arguments.network, arguments.options);
  DataConfig data;
  data.dataset.clear();  // --data-path is meant for whichever dataset is named
  data.path = arguments.path;
  const std::vector<std::string> metrics = {"fid"};
  const Reference a = load_reference(arguments.a, *network, wanted_for(metrics), arguments.limit, data);
  const Reference b = load_reference(arguments.b, *network, wanted_for(metrics), arguments.limit, data);
  if (!arguments.save.empty()) write_statistics(arguments.save, a.set.moments.at(OutputKind::features));

  Recipe recipe = network->recipe();
  recipe.merge(comparison_recipe(a.set, b));
  recipe.insert({{"images", a.name}, {"images_hash", a.hash}});
  for (const Score& score : compute_metrics(metrics, *network, "", a.set, b.set, recipe)) fmt::print("{}\n", format_score(score));
}

}  // namespace

void add_fid_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("fid", "Frechet distance between two sets of images");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("A", arguments->a, "Folder of images, .npz of statistics, or a dataset (fashion_mnist, fashion_mnist:test)")->required();
  command->add_option("B", arguments->b, "The reference, in the same forms")->required();
  command->add_option("--network,--metric", arguments->network, "Feature network: a row of `uvit list networks`, or script:FILE")->capture_default_str();
  command->add_option("--inception", arguments->options.weights, "Weights of network inception: pt_inception-2015-12-05-6726825d.pth");
  command->add_flag("--any-weights", arguments->options.any_weights, "Take Inception weights whose hash is not the published one's");
  command->add_option("--resize", arguments->options.resize, "A row of `uvit list resizes` (default: the network's own)");
  command->add_option("--device", arguments->options.device, "cpu or cuda, for the network (inception)")->capture_default_str();
  command->add_option("--network-precision", arguments->options.precision, "fp32, or bf16 (inception)")->capture_default_str();
  command->add_option("--limit", arguments->limit, "Images used of each side at most; 0: all")->capture_default_str();
  command->add_option("--data-path", arguments->path, "Where a dataset that is named lies (default: its own default)");
  command->add_option("--save", arguments->save, "Write the statistics of A to this .npz");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
