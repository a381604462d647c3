#include <torch/torch.h>

#include "commands/scoring_options.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "attention/device.h"
#include "core/error.h"
#include "metrics/manifold.h"

namespace uvit {

namespace fs = std::filesystem;

void ScoringOptions::add_network_to(CLI::App& command) {
  command.add_option("--network,--metric", network, "Feature network: a row of `uvit list networks`, or script:FILE");
  command.add_option("--inception", network_options.weights, "Weights of network inception: pt_inception-2015-12-05-6726825d.pth");
  command.add_flag("--any-weights", network_options.any_weights, "Take Inception weights whose hash is not the published one's");
  command.add_option("--resize", network_options.resize, "A row of `uvit list resizes` (default: the network's own)");
  command.add_option("--network-device", network_options.device, "cpu or cuda, for the network")->capture_default_str();
  command.add_option("--network-precision", network_options.precision, "fp32, or bf16 (inception)")->capture_default_str();
  command.add_option("--data-path", data_path, "Where a dataset that is named lies (default: its own default, or as the run had it)");
}

void ScoringOptions::add_metrics_to(CLI::App& command) {
  command.add_option("--metrics", metrics, "Rows of `uvit list metrics`, separated by commas")->delimiter(',')->capture_default_str();
  command.add_option("--output", output, "Output of the network that features are: 64, 192 or 768 of inception (default: its first)");
  command.add_option("--bootstrap", bars.resamples, "Resamples for a 95 % interval of fid, sfid, class-fid and is; 0: none")->capture_default_str();
  command.add_flag("--floor", bars.floor, "Also the score of as many real images against the rest of the reference");
  command.add_flag("--infinity", bars.infinity, "Also FID-infinity, the distance extrapolated to infinitely many images");
  command.add_option("--memorisation", memorisation, "Picture of the images nearest to reference images, beside those");
}

std::unique_ptr<FeatureNetwork> ScoringOptions::load(const std::string& fallback) const {
  if (bars.resamples < 0 || bars.resamples == 1) throw UsageError("--bootstrap: 0 for none, or at least 2 resamples");
  for (const std::string& name : metrics) find_metric(name);
  select_device(network_options.device);  // says in one line what is missing
  auto loaded = load_feature_network(network.value_or(fallback), network_options);
  if (!output.empty()) loaded->output(output);
  return loaded;
}

Wanted ScoringOptions::generated() const {
  Wanted wanted = wanted_generated(metrics, bars);
  wanted.output = output;
  if (!memorisation.empty()) wanted.rows.insert(OutputKind::features);
  return wanted;
}

Wanted ScoringOptions::reference() const {
  Wanted wanted = wanted_reference(metrics, bars);
  wanted.output = output;
  if (!memorisation.empty()) wanted.rows.insert(OutputKind::features);
  return wanted;
}

bool is_checkpoint(const std::string& spec) {
  const fs::path path(spec);
  if (fs::is_regular_file(path)) return path.extension() == ".safetensors" || path.extension() == ".pth" || path.extension() == ".pt";
  for (const char* part : {"checkpoints", "state.json", "nnet.pth", "nnet_ema.pth"}) {
    if (fs::exists(path / part)) return true;
  }
  return false;
}

DrawnSet draw_features(LoadedModel& loaded, const GenerateRequest& request, FeatureNetwork& network, const Wanted& wanted, std::size_t keep,
                       const std::function<void(std::size_t, const Image&)>& sink) {
  DrawnSet drawn;
  FeatureCollector collector(network, wanted);
  drawn.report = draw(loaded, request, [&](std::size_t index, const Image& image) {
    collector.add(image);
    if (sink) sink(index, image);
    if (drawn.images.size() < keep) drawn.images.push_back(image);
  });
  drawn.set = collector.finish(request.labels);
  return drawn;
}

Recipe drawn_recipe(const LoadedModel& loaded, const GenerateRequest& request, const GenerateReport& report) {
  Recipe recipe = sampling_recipe(loaded, report);
  recipe.insert({{"labels", request.labels.empty() ? "none" : "every class in turn"},
                 {"seeds", fmt::format("{} to {}", request.seeds.front(), request.seeds.back())}});
  return recipe;
}

std::vector<Score> score_sets(const ScoringOptions& options, const FeatureNetwork& network, const FeatureSet& generated, const ImageSource& images,
                              const Reference& reference, const Recipe& recipe) {
  std::vector<Score> scores = compute_with_error_bars(options.metrics, network, options.output, generated, reference.set, recipe, options.bars);
  if (options.memorisation.empty()) return scores;
  if (images.count == 0 || reference.images.count == 0)
    throw Error("--memorisation: the picture needs the images of both sides, and one of them is statistics alone");
  const Memorisation found = memorisation(reference.set.rows.at(OutputKind::features), generated.rows.at(OutputKind::features));
  write_png(options.memorisation, memorisation_picture(found, reference.images, images));
  const std::int64_t first = found.order[0].item<std::int64_t>();
  fmt::print("{}: the images nearest to reference images, each before its three nearest; the nearest of all is number {}, at {:.3g} of the distance "
             "from that reference image to the next one; {:.4g} % are farther than that\n",
             options.memorisation, first, found.ratio[first].item<double>(), 100 * found.authentic);
  return scores;
}

}  // namespace uvit
