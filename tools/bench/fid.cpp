// One side of the FID benchmark (fid.py runs it beside pytorch-fid and torch-fidelity):
//   bench_fid features WEIGHTS IMAGES.npz   CPU time an image of preparing and running Inception over uint8 `images` [N, 3, H, W]; writes the features
//   bench_fid frechet A.npz B.npz           CPU time of the Frechet distance of two files of statistics
// Prints one JSON line.
#include <torch/torch.h>

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"
#include "io/npz.h"
#include "metrics/feature_network.h"
#include "metrics/frechet.h"

namespace {

using namespace uvit;

struct Options {
  std::string weights, images, precision = "fp32", output, a, b;
  std::int64_t batch_size = 32, rounds = 3;
};

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// The least of `rounds` runs after one to warm up.
template <class Work>
double time_of(std::int64_t rounds, const Work& work) {
  work();
  double least = 1e300;
  for (std::int64_t i = 0; i < rounds; ++i) {
    const double start = cpu_seconds();
    work();
    least = std::min(least, cpu_seconds() - start);
  }
  return least;
}

void run_features(const Options& options) {
  NetworkOptions chosen;
  chosen.weights = options.weights;
  chosen.any_weights = true;
  chosen.precision = options.precision;
  const auto network = load_feature_network("inception", chosen);
  const at::Tensor images = to_torch(read_npz(options.images).at("images"));
  std::vector<at::Tensor> features;
  const double seconds = time_of(options.rounds, [&] {
    features.clear();
    for (std::int64_t i = 0; i < images.size(0); i += options.batch_size)
      features.push_back(network->features(images.slice(0, i, std::min(i + options.batch_size, images.size(0)))));
  });
  if (!options.output.empty()) write_npz(options.output, to_tensor_file({{"features", at::cat(features)}}));
  fmt::print("{{\"ms_per_image\": {:.4f}}}\n", 1000 * seconds / static_cast<double>(images.size(0)));
}

void run_frechet(const Options& options) {
  const FeatureStatistics a = read_statistics(options.a), b = read_statistics(options.b);
  double value = 0;
  const double seconds = time_of(options.rounds, [&] { value = frechet_distance(a, b); });
  fmt::print("{{\"seconds\": {:.4f}, \"value\": {:.15g}}}\n", seconds, value);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Inception's features and the Frechet distance, timed in CPU seconds.");
  Options options;
  CLI::App* features = app.add_subcommand("features", "Features of images");
  features->add_option("WEIGHTS", options.weights)->required();
  features->add_option("IMAGES", options.images)->required();
  features->add_option("--precision", options.precision, "fp32 or bf16")->capture_default_str();
  features->add_option("--batch-size", options.batch_size)->capture_default_str();
  features->add_option("--output", options.output, "Write the features to this .npz");
  CLI::App* frechet = app.add_subcommand("frechet", "Distance of two files of statistics");
  frechet->add_option("A", options.a)->required();
  frechet->add_option("B", options.b)->required();
  app.add_option("--rounds", options.rounds)->capture_default_str();
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);
  try {
    features->parsed() ? run_features(options) : run_frechet(options);
  } catch (const uvit::Error& e) {
    fmt::print(stderr, "bench_fid: {}\n", e.what());
    return 1;
  }
  return 0;
}
