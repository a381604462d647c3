// Every file of configs/ is the record of an experiment: it loads, all its names exist, its plan and its network fit.
#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>

#include "attention/plan.h"
#include "core/atomic_file.h"
#include "core/name_table.h"
#include "data/dataset.h"
#include "diffusion/parameterisation.h"
#include "diffusion/schedule.h"
#include "model/uvit.h"
#include "samplers/sampler.h"

namespace fs = std::filesystem;
using namespace uvit;

namespace {

std::vector<fs::path> config_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(UVIT_SOURCE_DIR) / "configs"))
    if (entry.path().extension() == ".toml") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string name_of(const fs::path& file) { return file.parent_path().filename().string() + "/" + file.stem().string(); }

/// The comment above the first section.
std::string header_of(const std::string& text) { return text.substr(0, text.find("\n[")); }

}  // namespace

TEST_CASE("every configuration loads, names what there is, and makes a plan; its header gives the command") {
  const std::vector<fs::path> files = config_files();
  REQUIRE(files.size() >= 12);
  for (const fs::path& file : files) {
    INFO(name_of(file));
    const Config config = load_config(file);
    CHECK_NOTHROW(find_row(dataset_table(), "dataset", config.data.dataset));
    CHECK_NOTHROW(make_schedule(config.diffusion));
    CHECK_NOTHROW(find_parameterisation(config.diffusion.prediction));
    CHECK_NOTHROW(find_solver(config.sample.solver));
    const UViTOptions options = make_uvit_options(config);
    CHECK(static_cast<std::int64_t>(options.plan.kinds.size()) == 2 * (config.model.depth / 2) + 1);
    CHECK(is_latent_dataset(config.data.dataset) == !config.data.autoencoder.empty());
    const std::string header = header_of(read_file(file));
    CHECK_THAT(header, Catch::Contains("uvit train configs/" + name_of(file) + ".toml"));
    const bool official = header.find("Official") != std::string::npos;
    if (official) CHECK_THAT(header, Catch::Contains("Published:") && Catch::Contains("FID") && Catch::Contains("GPUs"));
  }
}

TEST_CASE("the official configurations have the published numbers of parameters and the official rows of the label embedding") {
  const std::map<std::string, double> millions = {{"cifar10/uvit_small", 44}, {"celeba64/uvit_small", 44}, {"mscoco/uvit_small", 45},
                                                  {"mscoco/uvit_small_deep", 58}, {"mscoco/uvic_small", 45}};
  for (const fs::path& file : config_files()) {
    const auto found = millions.find(name_of(file));
    if (found == millions.end()) continue;
    INFO(found->first);
    const UViT model(make_uvit_options(load_config(file)));
    CHECK(std::abs(static_cast<double>(model.num_parameters()) / 1e6 - found->second) < 1);
  }
  const fs::path configs = fs::path(UVIT_SOURCE_DIR) / "configs";
  for (const char* file : {"imagenet256/uvit_large", "imagenet256/uvit_huge", "imagenet512/uvit_large", "imagenet512/uvit_huge"})
    CHECK(make_uvit_options(load_config(configs / fmt::format("{}.toml", file))).label_rows == 1001);
  for (const char* file : {"imagenet64/uvit_mid", "imagenet64/uvit_large"})
    CHECK(make_uvit_options(load_config(configs / fmt::format("{}.toml", file))).label_rows == 1000);
  const UViTOptions uvic = make_uvit_options(load_config(configs / "mscoco/uvic_small.toml"));
  CHECK(uvic.plan.in(0) == "softmax");
  CHECK(uvic.plan.out(5) == "softmax");
  CHECK(std::count(uvic.plan.kinds.begin(), uvic.plan.kinds.end(), "cog") == 11);
}
