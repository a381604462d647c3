#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "diffusion/schedule.h"

using namespace uvit;

namespace {

/// 301 times from t_min to t_max, both included.
std::vector<double> sampling_times(const Schedule& schedule) {
  std::vector<double> times;
  for (int i = 0; i <= 300; ++i) times.push_back(schedule.t_min() + (schedule.t_max() - schedule.t_min()) * i / 300.0);
  return times;
}

}  // namespace

TEST_CASE("every schedule keeps the variance and loses signal with time") {
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    double before = INFINITY;
    for (const double t : sampling_times(*schedule)) {
      INFO("t = " << t);
      const double alpha = schedule->alpha(t), sigma = schedule->sigma(t), lambda = schedule->lambda(t);
      CHECK(std::abs(alpha * alpha + sigma * sigma - 1) < 1e-14);
      CHECK(std::abs(lambda - std::log(alpha / sigma)) < 1e-11);
      CHECK(lambda < before);
      before = lambda;
    }
  }
}

TEST_CASE("lambda_inverse undoes lambda for every schedule") {
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    for (const double t : sampling_times(*schedule)) {
      INFO("t = " << t);
      CHECK(std::abs(schedule->lambda_inverse(schedule->lambda(t)) - t) < 1e-12);
    }
  }
}

TEST_CASE("beta is -2 d log(alpha) / dt for every schedule") {
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    for (int i = 2; i < 990; ++i) {
      const double t = (i + 0.5) / 1000, h = 1e-6;  // between the steps of a discrete schedule, where log_alpha has corners
      const double slope = -(schedule->log_alpha(t + h) - schedule->log_alpha(t - h)) / h;
      INFO("t = " << t);
      CHECK(std::abs(schedule->beta(t) - slope) < 1e-6 * slope);
    }
  }
}

TEST_CASE("sigma keeps its digits near t = 0 in continuous schedules") {
  int continuous = 0;
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    if (schedule->log_alpha(0) != 0) continue;
    ++continuous;
    INFO(row.name);
    CHECK(schedule->sigma(0) == 0);
    const double t = 1e-12;
    CHECK(schedule->sigma(t) == Approx(std::sqrt(schedule->beta(0) * t)).epsilon(1e-8));
    CHECK(schedule->lambda_inverse(schedule->lambda(t)) == Approx(t).epsilon(1e-4));
  }
  CHECK(continuous == 2);
}

TEST_CASE("training draws t over the whole range, and steps 1 ... 1000 in discrete training") {
  const double last = std::nextafter(1.0, 0.0);
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    const bool discrete = schedule->network_time(1) == 1000;
    for (const double u : {0.0, 1e-9, 0.0009, 0.001, 0.28951, 0.5, last}) {
      INFO("u = " << u);
      const double t = schedule->training_time(u), network_time = schedule->network_time(t);
      CHECK(network_time == Approx(discrete ? 1 + std::floor(1000 * u) : 999 * u).epsilon(1e-14));
      if (discrete) CHECK(static_cast<float>(network_time) == std::round(network_time));
      CHECK(schedule->sigma(t) <= 1);
    }
  }
}

TEST_CASE("an unknown schedule names the nearest") {
  CHECK_THROWS_WITH(make_schedule("vp_liner"), Catch::Contains("vp_linear"));
  CHECK_THROWS_AS(make_schedule(""), Error);
}
