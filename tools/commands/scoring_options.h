#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands/sampling_options.h"
#include "metrics/error_bars.h"
#include "metrics/feature_network.h"
#include "metrics/reference.h"

namespace uvit {

/// The options that `fid`, `fid-stats` and `evaluate` share: which network looks at images, and what is computed from what it sees.
struct ScoringOptions {
  std::optional<std::string> network;  ///< default: EvalConfig's, or that of the run
  NetworkOptions network_options;
  std::vector<std::string> metrics = {"fid"};
  std::string output;     ///< of the network; "": its first
  ErrorBarOptions bars;
  std::string data_path;
  std::string memorisation;  ///< picture to write; "": none

  void add_network_to(CLI::App& command);
  void add_metrics_to(CLI::App& command);
  /// @param fallback where no network was named
  std::unique_ptr<FeatureNetwork> load(const std::string& fallback) const;
  /// What each side must keep.
  Wanted generated() const;
  Wanted reference() const;
};

/// True for what load_model takes: a run folder, a step folder, a folder of official weights, a .safetensors or .pth file.
bool is_checkpoint(const std::string& spec);

/// Images drawn from a model, and what a network saw in them.
struct DrawnSet {
  FeatureSet set;
  GenerateReport report;
  std::vector<Image> images;  ///< the first ones, as many as were to be kept
};
/// Draws the request; each image goes to the network and to `sink`, and is kept only if it is among the first `keep`.
DrawnSet draw_features(LoadedModel& loaded, const GenerateRequest& request, FeatureNetwork& network, const Wanted& wanted, std::size_t keep,
                       const std::function<void(std::size_t, const Image&)>& sink = {});

/// The recipe of images drawn so: sampling_recipe, labels and seeds.
Recipe drawn_recipe(const LoadedModel& loaded, const GenerateRequest& request, const GenerateReport& report);

/// Computes and returns the scores of options.metrics, and writes the memorisation picture where one is asked for.
/// @param images of the generated side, for the picture
std::vector<Score> score_sets(const ScoringOptions& options, const FeatureNetwork& network, const FeatureSet& generated, const ImageSource& images,
                              const Reference& reference, const Recipe& recipe);

}  // namespace uvit
