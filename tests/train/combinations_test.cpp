#include <torch/torch.h>

#include <fmt/format.h>
#include <torch/script.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <optional>

#include "attention/attention.h"
#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "data/dataset.h"
#include "diffusion/loss.h"
#include "diffusion/time_law.h"
#include "samplers/generate.h"
#include "support/pairwise.h"
#include "support/scratch.h"
#include "train/ema_profile.h"
#include "train/evaluation.h"
#include "train/optimizer.h"
#include "train/tiny_run.h"

using namespace uvit;
using namespace uvit::test;

namespace {

template <class Row>
Factor table_factor(const std::string& name, std::span<const Row> rows) {
  Factor factor{name, {}};
  for (const Row& row : rows) factor.values.push_back(row.name);
  return factor;
}

/// Everything that a recipe chooses. The first value of a factor is the one of rows that have no missing pair to offer.
std::vector<Factor> all_factors() {
  return {table_factor("schedule", schedule_table()),
          table_factor("prediction", parameterisation_table()),
          table_factor("weighting", weighting_table()),
          table_factor("times", time_sampling_table()),
          table_factor("solver", solver_table()),
          table_factor("attention", attention_kinds()),
          {"qk_norm", {"no", "yes"}},
          {"rope", {"no", "yes"}},
          {"mlp", {"gelu", "swiglu"}},
          {"norm", {"layer", "rms"}},
          {"registers", {"0", "2"}},
          {"conditioning", {"tokens", "adaln_zero"}},
          table_factor("optimizer", optimizer_table()),
          {"precision", {"fp32", "bf16", "fp16"}},
          {"lr_schedule", {"constant", "cosine", "inverse_sqrt", "warmup_stable_decay"}},
          {"ema", {"constant", "half_life", "power"}}};
}

/// Alignment brings a projector of four million weights, a hundred times the network: it joins only as many rows as it takes to meet every value
/// of the factors that training shares with it. Not of precision fp16, whose products of that size take seconds on a CPU.
class AlignedRows {
 public:
  bool takes(const std::vector<Factor>& factors, const Pairwise::Row& row) {
    const std::set<std::string> shared = {"prediction", "attention", "qk_norm",   "rope",      "mlp", "norm",
                                          "registers",  "conditioning", "optimizer", "precision", "ema"};
    for (std::size_t i = 0; i < factors.size(); ++i)
      if (setting(factors[i], row[i]) == "precision=fp16") return false;
    bool is_new = false;
    for (std::size_t i = 0; i < factors.size(); ++i)
      if (shared.contains(factors[i].name)) is_new = met_.insert(setting(factors[i], row[i])).second || is_new;
    return is_new;
  }

 private:
  std::set<std::string> met_;
};

void align(Config& config, const std::string& encoder) {
  config.model.align_dim = 3;
  config.model.align_block = 1;
  config.train.align_encoder = encoder;
  config.train.batch_size = 8;
  config.train.steps = 8;
}

/// All that is refused, with a word of the reason.
const std::map<std::pair<std::string, std::string>, std::string>& refused_pairs() {
  static const std::map<std::pair<std::string, std::string>, std::string> pairs = {
      {{"schedule=edm", "times=logit_normal"}, "counts in sigma"},
      {{"prediction=x0", "weighting=edm"}, "grows without bound"},
      {{"schedule=edm", "solver=flow_euler"}, "edm_heun"},
      {{"schedule=edm", "solver=flow_heun"}, "edm_heun"},
  };
  return pairs;
}

/// The first images of Fashion-MNIST as IDX files of their own, which open in no time. False where it is not installed.
bool copy_fashion_mnist(const std::filesystem::path& folder) {
  Config config;
  config.data.num_classes = 10;
  const auto big_endian = [](std::int64_t value) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>((value >> shift) & 255);
    return bytes;
  };
  for (const auto& [split, name, count] : {std::tuple(Split::train, "train", 192), std::tuple(Split::test, "t10k", 32)}) {
    std::unique_ptr<Dataset> dataset;
    try {
      dataset = open_dataset(config.data, split);
    } catch (const Error&) {
      return false;
    }
    std::string images = big_endian(0x803) + big_endian(count) + big_endian(28) + big_endian(28), labels = big_endian(0x801) + big_endian(count);
    std::vector<std::uint8_t> pixels(28 * 28);
    for (std::int64_t i = 0; i < count; ++i) {
      dataset->read(i, pixels);
      images.append(pixels.begin(), pixels.end());
      labels += static_cast<char>(dataset->label(i));
    }
    write_file(folder / fmt::format("{}-images-idx3-ubyte", name), images);
    write_file(folder / fmt::format("{}-labels-idx1-ubyte", name), labels);
  }
  return true;
}

std::string write_encoder(const std::filesystem::path& folder) {
  torch::jit::Module module("Encoder");
  module.define("def forward(self, x):\n  p = torch.avg_pool2d(x, [7, 7]).flatten(2).transpose(1, 2)\n  return torch.cat([p, 1 - p, p * p], 2)\n");
  const std::string path = (folder / "encoder.pt").string();
  module.save(path);
  return path;
}

/// A network of seconds on 28 x 28 pixels.
Config base_config(const std::filesystem::path& data) {
  Config config;
  config.model.patch_size = 7;
  config.model.embed_dim = 16;
  config.model.depth = 2;
  config.model.num_heads = 2;
  config.model.softmax_blocks = {};
  config.diffusion.label_dropout = 0.1;
  config.data.dataset = "idx";
  config.data.path = data.string();
  config.data.image_size = {28};
  config.data.num_classes = 10;
  config.optimizer.lr = 1e-2;
  config.optimizer.betas = {0.9, 0.99};
  config.optimizer.warmup_steps = 1;
  config.optimizer.lr_reference_steps = 4;
  config.optimizer.lr_decay_share = 0.5;
  config.train.steps = 10;
  config.train.batch_size = 16;
  config.train.seed = 3;
  config.train.ema_decay = {0.5};
  config.train.threads = 1;
  config.train.eval_every = 1000;
  config.train.eval_images = 32;
  config.train.checkpoint_every = 1000;
  config.train.align_size = 28;
  config.sample.num_steps = 4;
  config.sample.batch_size = 3;
  config.sample.guidance_scale = 1.5;
  config.sample.tolerance = 1.0;  // of the adaptive solver, which would take hundreds of steps on so poor a network
  return config;
}

void apply(Config& config, const std::string& factor, const std::string& value) {
  const std::map<std::string, std::function<void()>> setters = {
      {"schedule", [&] { config.diffusion.schedule = value; }},
      {"prediction", [&] { config.diffusion.prediction = value; }},
      {"weighting", [&] { config.diffusion.weighting = value; }},
      {"times", [&] { config.diffusion.time_sampling = value; }},
      {"solver", [&] { config.sample.solver = value; }},
      {"attention", [&] { config.model.attention = {value}; }},
      {"qk_norm", [&] { config.model.qk_norm = value == "yes"; }},
      {"rope", [&] { config.model.rope = value == "yes"; }},
      {"mlp", [&] { config.model.mlp = value; }},
      {"norm", [&] { config.model.norm = value; }},
      {"registers", [&] { config.model.register_tokens = std::stoll(value); }},
      {"conditioning", [&] { config.model.conditioning = value; }},
      {"optimizer", [&] { config.optimizer.name = value; }},
      {"precision", [&] { config.train.precision = config.sample.precision = value; }},
      {"lr_schedule", [&] { config.optimizer.lr_schedule = value; }},
      {"ema",
       [&] {
         if (value == "half_life") config.train.ema_half_life = 64;
         if (value == "power") config.train.ema_power = {0.1};
       }},
  };
  setters.at(factor)();
}

/// Trains and samples. @return the held-out loss before and after. Throws what either throws.
std::pair<double, double> train_and_sample(const Config& config, const std::filesystem::path& run) {
  const auto schedule = make_schedule(config.diffusion);
  UViT untrained(make_uvit_options(config));
  untrained.initialise(config.train.seed);
  ProcessGroup alone;
  const double before = HeldOut(config).loss(untrained, *schedule, find_parameterisation(config.diffusion.prediction), alone);
  const TrainResult result = train({config, run});
  CHECK(load_checkpoint(result.checkpoint).second.ema.size() == ema_profiles(config.train).size());

  const LoadedModel loaded = load_model(run);
  GenerateRequest request;
  request.seeds = {1, 2, 3};
  request.labels = {0, 4, 9};
  std::size_t drawn = 0;
  const GenerateReport report = generate(*loaded.model, config, request, [&](std::size_t, const at::Tensor& image) {
    CHECK(image.isfinite().all().item<bool>());
    CHECK(image.std().item<double>() > 0);
    ++drawn;
  });
  CHECK(drawn == 3);
  const SolverRow& solver = find_solver(config.sample.solver);
  if (solver.nfe) CHECK(report.nfe == solver.nfe(config.sample.num_steps));
  return {before, result.eval_loss};
}

}  // namespace

TEST_CASE("pairwise rows hold every pair that is allowed, and none that is not") {
  const std::vector<Factor> factors = {{"a", {"0", "1", "2"}}, {"b", {"0", "1"}}, {"c", {"0", "1", "2", "3"}}};
  const Pairwise pairwise(factors, {{"c=3", "a=1"}, {"a=0", "b=1"}});
  CHECK(pairwise.pairs() == 3 * 2 + 3 * 4 + 2 * 4 - 2);
  std::set<std::pair<std::string, std::string>> seen;
  for (const Pairwise::Row& row : pairwise.rows())
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = i + 1; j < 3; ++j) seen.emplace(setting(factors[i], row[i]), setting(factors[j], row[j]));
  CHECK(seen.size() == pairwise.pairs());
  CHECK_FALSE(seen.contains({"a=1", "c=3"}));
  CHECK_FALSE(seen.contains({"a=0", "b=1"}));
  CHECK(pairwise.rows().size() < 3 * 2 * 4);
}

TEST_CASE("every pair of settings trains and samples on Fashion-MNIST, or is refused with the reason", "[combinations]") {
  const ScratchFolder data, runs;
  if (!copy_fashion_mnist(data.path())) {
    WARN("Fashion-MNIST is not installed: skipped");
    return;
  }
  spdlog::set_level(spdlog::level::err);
  const std::string encoder = write_encoder(data.path());
  const std::vector<Factor> factors = all_factors();
  std::set<std::pair<std::string, std::string>> forbidden;
  for (const auto& [pair, reason] : refused_pairs()) forbidden.insert(pair);
  const Pairwise pairwise(factors, forbidden);
  AlignedRows aligned;
  std::size_t number = 0, trained = 0;
  for (const Pairwise::Row& row : pairwise.rows()) {
    Config config = base_config(data.path());
    std::string text;
    for (std::size_t i = 0; i < factors.size(); ++i) {
      apply(config, factors[i].name, factors[i].values[row[i]]);
      text += setting(factors[i], row[i]) + " ";
    }
    if (aligned.takes(factors, row)) {
      align(config, encoder);
      text += "aligned";
    }
    INFO(text);
    const std::filesystem::path run = runs / fmt::format("{}", number++);
    std::string error;
    std::pair<double, double> losses{0, 0};
    try {
      losses = train_and_sample(config, run);
      ++trained;
    } catch (const Error& thrown) {
      error = thrown.what();
    }
    CHECK(error.empty());
    CHECK(losses.second < losses.first);
    std::filesystem::remove_all(run);
  }
  CHECK(trained == pairwise.rows().size());

  for (const auto& [pair, reason] : refused_pairs()) {
    Config config = base_config(data.path());
    for (const std::string& one : {pair.first, pair.second}) apply(config, one.substr(0, one.find('=')), one.substr(one.find('=') + 1));
    INFO(pair.first << " " << pair.second);
    CHECK_THAT(error_of([&] { train_and_sample(config, runs / "refused"); }), Catch::Contains(reason));
    std::filesystem::remove_all(runs / "refused");
  }
}
