#include <torch/torch.h>

#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <thread>

#include "checkpoint/checkpoint.h"
#include "support/scratch.h"
#include "train/gradients.h"
#include "train/interrupt.h"
#include "train/tiny_run.h"
#include "train/training_state.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

void check_equal(const NamedTensors& a, const NamedTensors& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].first);
    CHECK(a[i].first == b[i].first);
    CHECK(at::equal(a[i].second, b[i].second));
  }
}

/// Bit for bit: weights, averages, optimizer state, and every number of the log that is not a time.
void check_same_run(const fs::path& a, const fs::path& b) {
  const auto [state_a, tensors_a] = load_checkpoint(find_step_folder(a));
  const auto [state_b, tensors_b] = load_checkpoint(find_step_folder(b));
  CHECK(state_a.step == state_b.step);
  CHECK(state_a.images_seen == state_b.images_seen);
  CHECK(state_a.eval_loss == state_b.eval_loss);
  check_equal(tensors_a.model, tensors_b.model);
  check_equal(tensors_a.optimizer, tensors_b.optimizer);
  REQUIRE(tensors_a.ema.size() == tensors_b.ema.size());
  for (const auto& [profile, ema] : tensors_a.ema) check_equal(ema, tensors_b.ema.at(profile));
  CHECK(metrics_without_times(a) == metrics_without_times(b));
  CHECK(fs::read_symlink(a / "checkpoints/best") == fs::read_symlink(b / "checkpoints/best"));
}

}  // namespace

TEST_CASE("k steps and k more are 2k steps, bit for bit") {
  const ScratchFolder data, whole, halves;
  Config config = tiny_config(data.path());
  const std::string precision = GENERATE("fp32", "bf16", "fp16");
  INFO(precision);
  config.train.precision = precision;
  config.train.micro_batch_size = 3;
  config.train.threads = 2;
  const TrainResult once = train({config, whole / "run"});
  CHECK(once.step == 8);

  config.train.steps = 4;
  train({config, halves / "run"});
  config.train.steps = 8;
  config.data.workers = 3;
  const TrainResult resumed = train({config, halves / "run", true});
  CHECK(resumed.step == 8);
  CHECK(resumed.loss == once.loss);
  CHECK(resumed.eval_loss == once.eval_loss);
  check_same_run(whole / "run", halves / "run");
}

TEST_CASE("a run that SIGTERM stopped in the middle goes on as if it had not been") {
  const ScratchFolder data, whole, stopped;
  Config config = tiny_config(data.path());
  config.optimizer.lr_schedule = "cosine";
  config.train.steps = 150;
  config.train.log_every = 7;  // the signal falls between two lines, most likely
  config.train.eval_every = config.train.checkpoint_every = 50;
  train({config, whole / "run"});

  install_signal_handlers();
  std::thread sender([&] {
    while (!fs::exists(stopped / "run/metrics.jsonl")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    kill(getpid(), SIGTERM);
  });
  const TrainResult first = train({config, stopped / "run"});
  sender.join();
  REQUIRE(first.interrupted);
  CHECK(first.step >= 7);
  CHECK(first.step < 150);
  CHECK(load_state(first.checkpoint).step == first.step);
  CHECK_FALSE(interrupt_requested());

  const TrainResult second = train({config, stopped / "run", true});
  CHECK_FALSE(second.interrupted);
  check_same_run(whole / "run", stopped / "run");
}

TEST_CASE("a run may go on with another number of threads") {
  const ScratchFolder data, run;
  Config config = tiny_config(data.path());
  config.train.steps = 4;
  train({config, run / "run"});
  config.train.steps = 8;
  config.train.threads = 2;
  const TrainResult resumed = train({config, run / "run", true});
  CHECK(load_state(resumed.checkpoint).threads == 2);
}

TEST_CASE("a signal before the first step saves nothing and is reported") {
  const ScratchFolder data, run;
  install_signal_handlers();
  raise(SIGINT);
  const TrainResult result = train({tiny_config(data.path()), run / "run"});
  CHECK(result.interrupted);
  CHECK(result.step == 0);
  CHECK_FALSE(has_checkpoints(run / "run"));
}

TEST_CASE("a signal ends a step between two micro-batches") {
  const ScratchFolder data;
  Config config = tiny_config(data.path());
  const std::int64_t micro = GENERATE(2, 0);
  config.train.micro_batch_size = micro;
  const auto dataset = open_dataset(config.data, Split::train);
  const auto schedule = make_schedule(config.diffusion);
  TrainingBatches batches(*dataset, config, *schedule, 0);
  const TrainingBatch batch = batches.next();
  ProcessGroup alone;
  TrainingState state(config, torch::kCPU, alone);
  const auto sum = make_gradient_sum(alone, state.parameters(), false, micro_batches_of(config.train, 1));
  const auto add = [&] { add_gradients(state.model(), batch, config, *schedule, 1, *sum); };
  install_signal_handlers();
  raise(SIGTERM);
  if (micro > 0)
    CHECK_THROWS_AS(add(), Interrupted);
  else
    CHECK_NOTHROW(add());  // a batch in one piece is finished
  clear_interrupt();
}

TEST_CASE("log lines beyond the resumed step are dropped") {
  const ScratchFolder data, run;
  Config config = tiny_config(data.path());
  train({config, run / "run"});
  const auto before = metrics_without_times(run / "run");
  REQUIRE(before.back().at("step") == 8);
  fs::remove_all(run / "run/checkpoints/step-8");  // as if the crash came after the log, before the checkpoint
  append_line(run / "run/metrics.jsonl", "{\"step\": 9, \"lo");
  train({config, run / "run", true});
  CHECK(metrics_without_times(run / "run") == before);
}

TEST_CASE("a finished run that is resumed does nothing more") {
  const ScratchFolder data, run;
  const Config config = tiny_config(data.path());
  train({config, run / "run"});
  const auto before = metrics_without_times(run / "run");
  const TrainResult again = train({config, run / "run", true});
  CHECK(again.step == 8);
  CHECK_FALSE(again.interrupted);
  CHECK(again.checkpoint.filename() == "step-8");
  CHECK(metrics_without_times(run / "run") == before);
}

TEST_CASE("a run folder is never overwritten, and resumed with its own settings only") {
  const ScratchFolder data, run;
  const Config config = tiny_config(data.path());
  CHECK(error_of([&] { train({config, run / "run", true}); }).find("no checkpoint") != std::string::npos);
  train({config, run / "run"});
  CHECK(error_of([&] { train({config, run / "run"}); }).find("--resume") != std::string::npos);

  const auto refused = [&](const std::string& key, const std::function<void(Config&)>& change) {
    Config other = config;
    change(other);
    const std::string message = error_of([&] { train({other, run / "run", true}); });
    INFO(message);
    CHECK(message.find(key) != std::string::npos);
    return message;
  };
  const std::string message = refused("optimizer.lr", [](Config& c) { c.optimizer.lr = 0.25; });
  CHECK(message.find("0.001") != std::string::npos);
  CHECK(message.find("0.25") != std::string::npos);
  refused("train.seed", [](Config& c) { c.train.seed = 12; });
  refused("train.batch_size", [](Config& c) { c.train.batch_size = 5; });
  refused("diffusion.prediction", [](Config& c) { c.diffusion.prediction = "x0"; });
  refused("data.flip", [](Config& c) { c.data.flip = false; });
  refused("train.ema_decay", [](Config& c) { c.train.ema_decay = {0.9}; });
  refused("train.ema_power", [](Config& c) { c.train.ema_power = {0.1}; });
  CHECK(read_file(run / "run/config.toml").find("lr = 0.001") != std::string::npos);
}
