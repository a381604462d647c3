#include <torch/torch.h>

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/checkpoint.h"
#include "core/version.h"
#include "data/image_io.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "train/evaluation.h"
#include "train/tiny_run.h"
#include "train/training_score.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

std::string event_bytes(const fs::path& run) {
  for (const auto& entry : fs::directory_iterator(run))
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) return read_file(entry.path());
  return "";
}

std::set<std::string> step_names(const fs::path& run) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints")) names.insert(entry.path().filename().string());
  return names;
}

}  // namespace

TEST_CASE("a run leaves its record: settings, metrics, events, grids, checkpoints") {
  const ScratchFolder data, scratch;
  const fs::path run = scratch / "run";
  Config config = tiny_config(data.path());
  config.train.sample_every = 8;
  const TrainResult result = train({config, run});
  CHECK(result.step == 8);
  CHECK_FALSE(result.interrupted);
  CHECK(std::isfinite(result.loss));
  CHECK(result.eval_loss > 0);
  CHECK(result.images_per_second > 0);
  CHECK(result.checkpoint.filename() == "step-8");

  const std::string toml = read_file(run / "config.toml");
  CHECK(toml.starts_with("# "));
  CHECK(toml.find(git_commit()) != std::string::npos);
  CHECK(to_toml(parse_config(toml, "config.toml")) == to_toml(config));

  const auto metrics = metrics_without_times(run);
  REQUIRE(metrics.size() == 4);
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const std::int64_t step = 2 * static_cast<std::int64_t>(i) + 2;
    CHECK(metrics[i].at("step") == step);
    CHECK(metrics[i].at("lr") == config.optimizer.lr * (std::min<double>(static_cast<double>(step - 1) / 3, 1)));  // the rate that step used
    CHECK(metrics[i].at("grad_norm") > 0);
    CHECK(metrics[i].contains("eval_loss") == (step % 4 == 0));
  }
  CHECK(metrics.back().at("eval_loss") == result.eval_loss);

  const std::string events = event_bytes(run);
  for (const char* tag : {"loss/train", "loss/eval", "lr", "grad/norm", "perf/images_per_second", "samples/ema_0.9"})
    CHECK(events.find(tag) != std::string::npos);

  const Image grid = read_image(run / "samples/step-8.png", 1);
  CHECK(grid.width == make_grid(std::vector<Image>(6, Image{1, 8, 8, std::vector<std::uint8_t>(64)}), 3).width);
  CHECK(grid.height < grid.width);

  const LoadedModel loaded = load_model(run);
  CHECK(loaded.step == 8);
  CHECK(loaded.weights == "ema_0.9");
  const CheckpointState state = load_state(result.checkpoint);
  CHECK(state.images_seen == 48);
  CHECK(state.threads == 1);
  CHECK(state.plan.kinds == std::vector<std::string>{"softmax", "cog", "softmax"});
}

TEST_CASE("gradients accumulated over micro-batches are those of the whole batch") {
  const ScratchFolder data, scratch;
  Config config = tiny_config(data.path());
  config.train.steps = 1;  // its rate is 0, and exp_avg is 0.01 times the gradient
  config.optimizer.clip_grad_norm = 0;
  const TrainResult whole = train({config, scratch / "whole"});
  const NamedTensors reference = load_checkpoint(whole.checkpoint).second.optimizer;
  for (std::int64_t micro : {1, 2, 3}) {
    config.train.micro_batch_size = micro;
    const TrainResult result = train({config, scratch / fmt::format("micro-{}", micro)});
    CHECK(result.loss == Approx(whole.loss).epsilon(1e-6));
    const NamedTensors moments = load_checkpoint(result.checkpoint).second.optimizer;
    for (std::size_t i = 0; i < reference.size(); ++i)
      check_tensor(reference[i].first, moments[i].second, reference[i].second, 1e-6 * max_abs(reference[i].second) + 1e-9);
  }
}

TEST_CASE("lower precision computes nearly the same gradients, in another precision") {
  const ScratchFolder data, scratch;
  Config config = tiny_config(data.path());
  config.train.steps = 1;
  const TrainResult full = train({config, scratch / "fp32"});
  const auto gradient = [](const TrainResult& result) {
    const NamedTensors state = load_checkpoint(result.checkpoint).second.optimizer;
    for (const auto& [name, tensor] : state)
      if (name == "exp_avg.decoder_pred.weight") return tensor;
    return at::Tensor();
  };
  for (const char* precision : {"bf16", "fp16"}) {
    INFO(precision);
    config.train.precision = precision;
    const TrainResult low = train({config, scratch / precision});
    const double difference = (gradient(low) - gradient(full)).norm().item<double>() / gradient(full).norm().item<double>();
    CHECK(difference < 0.05);
    CHECK(difference > 1e-5);  // a float32 run would agree to 1e-7
    for (const auto& [name, tensor] : load_checkpoint(low.checkpoint).second.model) CHECK(tensor.scalar_type() == torch::kFloat32);
  }
}

TEST_CASE("the best checkpoint is that of the lowest held-out loss, and survives pruning with the newest ones") {
  const ScratchFolder data, scratch;
  const fs::path run = scratch / "run";
  Config config = tiny_config(data.path());
  config.optimizer.lr = 0.02;
  config.train.steps = 12;
  config.train.checkpoint_every = 1;
  config.train.keep_checkpoints = 2;
  config.train.ema_decay = {0.5};
  train({config, run});
  double lowest = 1e9;
  std::string best;
  for (const auto& line : metrics_without_times(run)) {
    if (line.at("eval_loss") >= lowest) continue;
    lowest = line.at("eval_loss");
    best = fmt::format("step-{}", line.at("step").get<std::int64_t>());
  }
  CHECK(load_state(run / "checkpoints/best").eval_loss == lowest);
  CHECK(fs::read_symlink(run / "checkpoints/best") == best);
  CHECK(step_names(run) == std::set<std::string>{"best", "latest", "step-11", "step-12", best});
}

TEST_CASE("scores in training are of their checkpoint, the best one is kept, and a resumed run knows it") {
  const ScratchFolder data, scratch;
  const fs::path run = scratch / "run";
  Config config = tiny_config(data.path());
  config.train.steps = 6;
  config.train.keep_checkpoints = 1;
  config.train.ema_decay = {0.5};
  config.optimizer.lr = 0.02;
  config.sample.num_steps = 2;
  config.sample.batch_size = 5;
  config.sample.solver = "ddim";
  config.sample.eta = 0.5;
  config.eval.every_steps = 2;
  config.eval.n = 10;
  const auto scores = [&](const fs::path& of) {
    std::vector<std::pair<std::string, double>> found;
    std::ifstream stream(of / "scores.jsonl");
    for (std::string line; std::getline(stream, line);) {
      const auto json = nlohmann::json::parse(line);
      CHECK(json["metric"] == "FD[fmnist-cnn]@10");
      found.emplace_back(json["recipe"]["step"], json["value"]);
    }
    return found;
  };
  train({config, run});
  const auto whole = scores(run);
  REQUIRE(whole.size() == 3);
  CHECK(whole[0].first == "2");
  CHECK(whole[2].first == "6");
  const auto best = std::min_element(whole.begin(), whole.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  CHECK(fs::read_symlink(run / "checkpoints/best_score") == "step-" + best->first);
  CHECK(fs::exists(run / "checkpoints/best_score/state.json"));
  ProcessGroup alone;
  const TrainingScore same(config, alone);
  REQUIRE(same.taken_before(run / "scores.jsonl").size() == 3);
  CHECK(same.taken_before(run / "scores.jsonl")[1].value == whole[1].second);
  Config other = config;
  other.eval.n = 11;  // another metric, "@11"
  CHECK(TrainingScore(other, alone).taken_before(run / "scores.jsonl").empty());
  const std::string recipe = nlohmann::json::parse(read_file(run / "scores.jsonl").substr(0, read_file(run / "scores.jsonl").find('\n')))["recipe"].dump();
  CHECK_THAT(recipe, Catch::Contains("\"eta\":\"0.5\""));  // every [sample] key of the solver that is not at its default

  const fs::path halves = scratch / "halves";
  Config half = config;
  half.train.steps = 4;
  train({half, halves});
  train({config, halves, true});
  CHECK(scores(halves) == whole);
  CHECK(fs::read_symlink(halves / "checkpoints/best_score") == fs::read_symlink(run / "checkpoints/best_score"));
  config.eval.reference = (scratch / "none.npz").string();
  CHECK_THAT(error_of([&] { train({config, scratch / "one"}); }), Catch::Contains("none.npz"));
}

TEST_CASE("the held-out loss by noise level: one level is the loss, and a model that predicts nothing errs by the noise at every level") {
  const ScratchFolder data, scratch;
  Config config = tiny_config(data.path());
  train({config, scratch / "run"});
  const LoadedModel loaded = load_model(scratch / "run");
  const HeldOut held_out(config);
  const auto schedule = make_schedule(config.diffusion);
  const Parameterisation eps = find_parameterisation("eps");
  CHECK(held_out.size() == 7);
  ProcessGroup alone;
  CHECK(held_out.losses_by_level(*loaded.model, *schedule, eps, 1) == std::vector{held_out.loss(*loaded.model, *schedule, eps, alone)});
  const std::vector<double> trained = held_out.losses_by_level(*loaded.model, *schedule, eps, 3);
  REQUIRE(trained.size() == 3);
  CHECK(trained[0] != trained[1]);
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : loaded.model->parameters()) parameter.zero_();
  const std::vector<double> nothing = held_out.losses_by_level(*loaded.model, *schedule, eps, 3);
  CHECK(nothing[0] == Approx(1).epsilon(0.27));  // the mean of 7 * 64 squares of normal numbers: 1 within 4 standard deviations
  CHECK(nothing[1] == nothing[0]);               // the same noise at every level
  CHECK(nothing[2] == nothing[0]);
}

TEST_CASE("training without classes and held-out loss") {
  const ScratchFolder data, scratch;
  Config config = tiny_config(data.path());
  config.data.num_classes = 0;
  config.diffusion.label_dropout = 0;
  config.diffusion.prediction = "v";
  config.diffusion.schedule = "vp_cosine";
  config.train.eval_every = 0;
  config.train.sample_every = 4;
  const TrainResult result = train({config, scratch / "run"});
  CHECK(result.eval_loss < 0);
  CHECK(fs::exists(scratch / "run/samples/step-4.png"));
  CHECK_FALSE(fs::exists(scratch / "run/checkpoints/best"));
}

TEST_CASE("a loss that is not finite stops with the step, and the last good checkpoint stays") {
  const ScratchFolder data, scratch;
  const fs::path run = scratch / "run";
  Config config = tiny_config(data.path());
  config.train.steps = 30;
  config.train.checkpoint_every = 1;
  config.train.eval_every = 0;
  config.train.max_bad_steps = 3;
  config.optimizer.warmup_steps = 2;  // step 1 has rate 0, step 2 half the rate
  config.optimizer.lr = 1e30;
  const std::string message = error_of([&] { train({config, run}); });
  INFO(message);
  CHECK(message.find("training stopped in step") != std::string::npos);
  CHECK(message.find("2 of 2 returns to a checkpoint done") != std::string::npos);
  CHECK(message.find("first not finite: the output of aten::") != std::string::npos);
  const fs::path kept = find_step_folder(run);
  CHECK(message.find(kept.string()) != std::string::npos);
  CHECK(kept.filename() == "step-2");  // of the second return, to step 1, for nothing good came of the first one to step 2
  for (const auto& [name, tensor] : load_checkpoint(kept).second.model) CHECK(at::isfinite(tensor).all().item<bool>());
  CHECK(load_state(kept).rollbacks == 2);
}

TEST_CASE("a disk that fills up stops with one line, and the last good checkpoint stays") {
  const ScratchFolder data, scratch;
  const fs::path run = scratch / "run";
  Config config = tiny_config(data.path());
  train({config, run});
  config.train.steps = 12;
  {
    const FileSizeLimit limit(20000);
    CHECK(error_of([&] { train({config, run, true}); }).find("step-12") != std::string::npos);
  }
  CHECK(load_checkpoint(find_step_folder(run)).first.step == 8);
  CHECK(train({config, run, true}).step == 12);
}

TEST_CASE("what cannot be trained is refused before anything is written") {
  const ScratchFolder data, scratch;
  const Config config = tiny_config(data.path());
  const auto refused = [&](const std::string& word, const std::function<void(Config&)>& change) {
    Config other = config;
    change(other);
    const std::string message = error_of([&] { train({other, scratch / "run"}); });
    INFO(message);
    CHECK(message.find(word) != std::string::npos);
    CHECK_FALSE(fs::exists(scratch / "run"));
  };
  refused("context", [](Config& c) { c.model.context_dim = 8, c.model.context_tokens = 2; });
  refused("label_dropout", [](Config& c) { c.train.sample_every = 2, c.sample.guidance_scale = 2, c.diffusion.label_dropout = 0; });
  refused("label_dropout", [](Config& c) { c.eval.every_steps = 2, c.sample.guidance_scale = 2, c.diffusion.label_dropout = 0; });
  refused("unknown solver 'heunn'", [](Config& c) { c.sample.solver = "heunn"; });
  refused("unknown time grid 'steep'", [](Config& c) { c.sample.solver = "dpm_solver_pp_2m", c.sample.time_grid = "steep"; });
  refused("t = 5", [](Config& c) { c.sample.t_end = 5; });
  refused("sample.order", [](Config& c) { c.sample.solver = "dpm_solver_adaptive", c.sample.order = 1; });
  refused("schedule", [](Config& c) { c.sample.solver = "flow_heun", c.diffusion.schedule = "edm", c.diffusion.prediction = "edm", c.diffusion.weighting = "edm"; });
  refused("unknown feature network", [](Config& c) { c.eval.every_steps = 2, c.eval.metric = "none"; });
  refused("nowhere", [](Config& c) { c.data.path = "nowhere"; });
  if (!torch::cuda::is_available()) refused("cuda", [](Config& c) { c.train.device = "cuda"; });
  write_file(scratch / "file", std::string_view("no folder"));
  CHECK(error_of([&] { train({config, scratch / "file/run"}); }).find((scratch / "file").string()) != std::string::npos);
}
