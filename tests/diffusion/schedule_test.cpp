#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "diffusion/normal_quantile.h"
#include "diffusion/schedule.h"
#include "diffusion/schedules.h"
#include "diffusion/time_law.h"

using namespace uvit;

namespace {

/// 301 times from t_min to t_max, both included.
std::vector<double> sampling_times(const Schedule& schedule) {
  std::vector<double> times;
  for (int i = 0; i <= 300; ++i) times.push_back(schedule.t_min() + (schedule.t_max() - schedule.t_min()) * i / 300.0);
  return times;
}

bool is_vp(const Schedule& schedule) { return dynamic_cast<const VpSchedule*>(&schedule) != nullptr; }

}  // namespace

TEST_CASE("every schedule loses signal with time; the variance-preserving ones keep the variance") {
  int preserving = 0;
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    const bool vp = is_vp(*schedule);
    preserving += vp;
    double before = INFINITY;
    for (const double t : sampling_times(*schedule)) {
      INFO("t = " << t);
      const double alpha = schedule->alpha(t), sigma = schedule->sigma(t), lambda = schedule->lambda(t);
      if (vp) CHECK(std::abs(alpha * alpha + sigma * sigma - 1) < 1e-14);
      CHECK(alpha == Approx(std::exp(schedule->log_alpha(t))).epsilon(1e-12));
      CHECK(std::abs(lambda - std::log(alpha / sigma)) < 1e-11);
      CHECK(lambda < before);
      before = lambda;
    }
  }
  CHECK(preserving == 3);
}

TEST_CASE("lambda_inverse undoes lambda for every schedule") {
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    for (const double t : sampling_times(*schedule)) {
      INFO("t = " << t);
      CHECK(std::abs(schedule->lambda_inverse(schedule->lambda(t)) - t) < 1e-12 * std::fmax(1, t));
    }
  }
}

TEST_CASE("drift, diffusion and slopes are the derivatives of alpha and sigma for every schedule") {
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    for (int i = 2; i < 990; ++i) {
      const double t = (i + 0.5) / 1000, h = 1e-6;  // between the steps of a discrete schedule, where log_alpha has corners
      INFO("t = " << t);
      const auto slope = [&](auto value) { return (value(t + h) - value(t - h)) / (2 * h); };
      const double sigma = schedule->sigma(t), drift = slope([&](double s) { return schedule->log_alpha(s); });
      const double growth = slope([&](double s) { return std::pow(schedule->sigma(s), 2); });
      CHECK(std::abs(schedule->drift(t) - drift) <= 1e-6 * std::abs(drift) + 1e-9);
      CHECK(schedule->squared_diffusion(t) == Approx(growth - 2 * drift * sigma * sigma).epsilon(1e-6));
      CHECK(schedule->alpha_slope(t) == Approx(slope([&](double s) { return schedule->alpha(s); })).epsilon(1e-6).margin(1e-9));
      CHECK(schedule->sigma_slope(t) == Approx(slope([&](double s) { return schedule->sigma(s); })).epsilon(1e-6));
    }
  }
}

TEST_CASE("sigma keeps its digits near t = 0 in continuous schedules") {
  int continuous = 0;
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    if (!is_vp(*schedule) || schedule->log_alpha(0) != 0) continue;
    ++continuous;
    INFO(row.name);
    CHECK(schedule->sigma(0) == 0);
    const double t = 1e-12;
    CHECK(schedule->sigma(t) == Approx(std::sqrt(schedule->squared_diffusion(0) * t)).epsilon(1e-8));
    CHECK(schedule->lambda_inverse(schedule->lambda(t)) == Approx(t).epsilon(1e-4));
  }
  CHECK(continuous == 2);
}

TEST_CASE("training draws t over the whole range, steps 1 ... 1000 in discrete training, and log-normal sigma for edm") {
  const double last = std::nextafter(1.0, 0.0);
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    if (!schedule->unit_time()) continue;
    const bool discrete = schedule->network_time(1) == 1000;
    for (const double u : {0.0, 1e-9, 0.0009, 0.001, 0.28951, 0.5, last}) {
      INFO("u = " << u);
      const double t = schedule->training_time(u), network_time = schedule->network_time(t);
      CHECK(network_time == Approx(discrete ? 1 + std::floor(1000 * u) : 999 * u).epsilon(1e-14));
      if (discrete) CHECK(static_cast<float>(network_time) == std::round(network_time));
      CHECK(schedule->sigma(t) <= 1);
    }
  }
  const auto edm = make_schedule("edm");
  CHECK(edm->training_time(0.5) == Approx(std::exp(-1.2)));
  CHECK(edm->training_time(0.8413447460685429) == Approx(1.0));
  CHECK(edm->input_scale(0) == 2);
  CHECK(edm->network_time(std::exp(1)) == Approx(250));
}

TEST_CASE("the normal quantile undoes the normal distribution to the last digits") {
  for (const double z : {-8.0, -5.0, -2.3, -1.0, -0.1, 0.0, 0.7, 1.9, 2.5, 5.0}) {
    const double u = 0.5 * std::erfc(-z / std::sqrt(2.0));
    CHECK(std::abs(normal_quantile(u) - z) < (z > 2 ? 1e-9 : 1e-13));  // 1 - u has lost the digits above
  }
  CHECK(std::isfinite(normal_quantile(0)));
  CHECK(normal_quantile(1) == -normal_quantile(0));
}

TEST_CASE("every law of training times rises with its draw and stays in range; the shift moves it towards noise") {
  for (const ScheduleRow& row : schedule_table()) {
    for (const TimeSamplingRow& law_row : time_sampling_table()) {
      INFO(row.name << " " << law_row.name);
      DiffusionConfig config;
      config.schedule = row.name;
      config.time_sampling = law_row.name;
      config.time_mean = 0.3;
      config.time_std = 0.8;
      const bool unit = make_schedule(row.name)->unit_time();
      if (!unit && law_row.name == "logit_normal") {
        CHECK_THROWS_WITH(make_schedule(config), Catch::Contains("edm"));
        continue;
      }
      const auto schedule = make_schedule(config);
      const TimeLaw law(config, *schedule);
      DiffusionConfig shifted = config;
      shifted.time_shift = 3;
      double before = -1;
      for (int i = 0; i < 1000; ++i) {
        const double u = i / 1000.0, t = law(u);
        CHECK(t >= before);
        if (unit) CHECK((t >= 0 && t <= 1));
        if (unit) CHECK(TimeLaw(shifted, *schedule)(u) >= t);
        before = t;
      }
      if (law_row.name == "log_normal") CHECK(schedule->lambda(law(0.5)) == Approx(-0.3));
      if (law_row.name == "logit_normal" && row.name == "flow") CHECK(law(0.5) == Approx(1 / (1 + std::exp(-0.3))));
      if (!unit) CHECK_THROWS_AS(make_schedule(shifted), Error);
    }
  }
  CHECK(shift_time(0.5, 3) == Approx(0.75));
  CHECK(shift_time(shift_time(0.2, 3), 1.0 / 3) == Approx(0.2));
}

TEST_CASE("stratified draws put one sample of a batch into each of its parts") {
  Config config;
  config.train.batch_size = 8;
  CHECK(stratified_draw(0.37, 5, config) == 0.37);
  config.diffusion.stratified_times = true;
  for (std::uint64_t index = 16; index < 24; ++index) {
    const double u = stratified_draw(0.37, index, config);
    CHECK(static_cast<std::uint64_t>(u * 8) == index - 16);
  }
}

TEST_CASE("an unknown schedule names the nearest") {
  CHECK_THROWS_WITH(make_schedule("vp_liner"), Catch::Contains("vp_linear"));
  CHECK_THROWS_AS(make_schedule(""), Error);
}
