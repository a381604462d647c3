#include "train/cadence.h"

#include <catch2/catch.hpp>

using namespace uvit;

TEST_CASE("what follows a step hangs on its number alone; every checkpoint comes with a held-out loss and a line of the log") {
  Config config;
  config.train.steps = 20;
  config.train.log_every = 4;
  config.train.eval_every = 6;
  config.train.checkpoint_every = 5;
  config.train.sample_every = 0;
  config.eval.every_steps = 9;
  const Cadence cadence(config);
  std::vector<std::int64_t> checkpoints, evaluations, lines, scores;
  for (std::int64_t step = 1; step <= 20; ++step) {
    if (cadence.checkpoint(step)) checkpoints.push_back(step);
    if (cadence.evaluation(step)) evaluations.push_back(step);
    if (cadence.line(step)) lines.push_back(step);
    if (cadence.score(step)) scores.push_back(step);
    CHECK_FALSE(cadence.preview(step));
    CHECK(cadence.is_last(step) == (step == 20));
  }
  CHECK(checkpoints == std::vector<std::int64_t>{5, 9, 10, 15, 18, 20});
  CHECK(evaluations == std::vector<std::int64_t>{5, 6, 9, 10, 12, 15, 18, 20});
  CHECK(lines == std::vector<std::int64_t>{4, 5, 6, 8, 9, 10, 12, 15, 16, 18, 20});
  CHECK(scores == std::vector<std::int64_t>{9, 18});

  config.train.eval_every = 0;
  const Cadence without(config);
  for (std::int64_t step = 1; step <= 20; ++step) CHECK_FALSE(without.evaluation(step));
}
