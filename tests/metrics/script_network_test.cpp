#include <torch/torch.h>

#include "metrics/script_network.h"

#include <torch/script.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// A module whose features are the channels' means and twice them, and its settings.
std::string write_module(const ScratchFolder& folder, const std::string& result, const std::string& settings) {
  torch::jit::Module module("Means");
  module.define("def forward(self, x):\n  m = x.mean([2, 3])\n  y = torch.cat([m, 2 * m], 1)\n  return " + result + "\n");
  const std::string path = (folder / "means.pt").string();
  module.save(path);
  std::ofstream(folder / "means.toml") << settings;
  return path;
}

constexpr const char* kSettings = "size = 6\nresize = \"pytorch-fid\"\nmean = [0.5, 0.25, 0.0]\nstd = [0.5, 1.0, 2.0]\n";

at::Tensor images() { return at::arange(2 * 3 * 9 * 9).remainder(251).to(at::kByte).view({2, 3, 9, 9}); }

}  // namespace

TEST_CASE("a TorchScript module is a feature network, prepared as its settings say") {
  const ScratchFolder folder;
  const std::string path = write_module(folder, "y", kSettings);
  const auto network = load_feature_network("script:" + path);
  CHECK(network->name() == "script:means.pt");
  CHECK(network->channels() == 3);
  CHECK(network->outputs().front().dims == 6);
  CHECK(network->weights_hash().size() == 64);
  CHECK_THAT(network->preprocess(), Catch::Contains("pytorch-fid to 6 x 6") && Catch::Contains("[0.5, 0.25, 0]"));
  const at::Tensor resized = at::upsample_bilinear2d(images().to(at::kFloat), {6, 6}, false).mean({2, 3}) / 255;
  const at::Tensor means = (resized - torch::tensor({0.5f, 0.25f, 0.0f})) / torch::tensor({0.5f, 1.0f, 2.0f});
  check_tensor("features", network->features(images()), at::cat({means, 2 * means}, 1), 1e-5);
}

TEST_CASE("the output of a module may be in a dict, a tuple, or have places left to average") {
  const ScratchFolder folder;
  const at::Tensor expected = load_feature_network("script:" + write_module(folder, "y", kSettings))->features(images());
  const auto features = [&](const std::string& result, const std::string& output) {
    return load_feature_network("script:" + write_module(folder, result, kSettings + ("output = \"" + output + "\"\n")))->features(images());
  };
  CHECK(features("{'other': m, 'wanted': y}", "wanted").equal(expected));
  CHECK(features("(m, y)", "1").equal(expected));
  const std::string spatial = "y.unsqueeze(2).unsqueeze(3) + torch.zeros([1, 1, 2, 2])";
  check_tensor("spatial", load_feature_network("script:" + write_module(folder, spatial, kSettings))->features(images()), expected, 1e-6);
  CHECK_THAT(error_of([&] { features("{'other': m}", "wanted"); }), Catch::Contains("means.pt") && Catch::Contains("'wanted'"));
  CHECK_THAT(error_of([&] { features("(m, y)", "2"); }), Catch::Contains("'2'"));
}

TEST_CASE("what is no module, or has no settings, is refused in one line") {
  const ScratchFolder folder;
  const auto message = [&](const std::string& result, const std::string& settings) {
    const std::string path = write_module(folder, result, settings);
    return error_of([&] { load_feature_network("script:" + path); });
  };
  CHECK_THAT(message("y", "size = 6\nmean = [0.5]\n"), Catch::Contains("means.toml") && Catch::Contains("std"));
  CHECK_THAT(message("y", kSettings + std::string("sizes = 3\n")), Catch::Contains("'sizes'") && Catch::Contains("'size'"));
  CHECK_THAT(message("y", "size = 6\nmean = [0.5, 1.0]\nstd = [1.0, 1.0]\n"), Catch::Contains("2 numbers"));
  CHECK_THAT(message("y", "size = -6\nmean = [0.5]\nstd = [1.0]\n"), Catch::Contains("size"));
  CHECK_THAT(message("y", "size = 6\nmean = [0.5]\nstd = [0.0]\n"), Catch::Contains("positive"));
  CHECK_THAT(message("y", "size = 6\nresize = \"lanczos\"\nmean = [0.5]\nstd = [1.0]\n"), Catch::Contains("lanczos"));
  CHECK_THAT(message("y", "size = \n"), Catch::Contains("means.toml"));
  CHECK_THAT(message("y.sum()", kSettings), Catch::Contains("not [N, D]"));
  CHECK_THAT(message("torch.mm(x, x)", kSettings), Catch::Contains("fails on images"));
  CHECK_THAT(error_of([&] { load_feature_network("script:" + (folder / "absent.pt").string()); }), Catch::Contains("absent.pt"));
  CHECK_THAT(error_of([&] { load_feature_network("script"); }), Catch::Contains("script:FILE.pt"));
  std::ofstream(folder / "means.pt") << "no module";
  std::ofstream(folder / "means.toml") << kSettings;
  CHECK_THAT(error_of([&] { load_feature_network("script:" + (folder / "means.pt").string()); }), Catch::Contains("means.pt"));
}
