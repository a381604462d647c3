#include <torch/torch.h>

#include "diffusion/schedule.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "core/error.h"
#include "core/name_table.h"
#include "diffusion/loss.h"
#include "diffusion/schedules.h"
#include "diffusion/time_law.h"

namespace uvit {

double Schedule::alpha(double t) const { return std::exp(log_alpha(t)); }

double VpSchedule::sigma(double t) const { return std::sqrt(std::fmax(0.0, -std::expm1(2 * log_alpha(t)))); }

double Schedule::lambda(double t) const { return log_alpha(t) - std::log(sigma(t)); }

std::span<const ScheduleRow> schedule_table() {
  static const std::array<ScheduleRow, 5> table = {{
      {"vp_linear", "VP-SDE, beta 0.1 .. 20 (U-ViT's continuous training), arXiv:2011.13456", make_vp_linear},
      {"vp_cosine", "squared cosine, s = 0.008, sampling from t = 0.9946, arXiv:2102.09672", make_vp_cosine},
      {"sd_discrete", "1000 steps, scaled linear beta 0.00085 .. 0.012 (U-ViT's latent models), arXiv:2112.10752", make_sd_discrete},
      {"edm", "alpha = 1, t = sigma in 0.002 .. 80, inputs scaled, log-normal training, arXiv:2206.00364", make_edm},
      {"flow", "rectified flow, alpha = 1 - t, sigma = t, arXiv:2209.03003", make_flow},
  }};
  return table;
}

std::unique_ptr<Schedule> make_schedule(const std::string& name) { return find_row(schedule_table(), "schedule", name).make(); }

std::unique_ptr<Schedule> make_schedule(const DiffusionConfig& config) {
  std::unique_ptr<Schedule> schedule = make_schedule(config.schedule);
  schedule->sigma_data = config.sigma_data;
  find_parameterisation(config.prediction);
  find_weighting(config.weighting);
  TimeLaw(config, *schedule);
  if (config.weighting == "edm" && config.prediction == "x0")
    throw Error("diffusion.weighting = \"edm\" with prediction \"x0\": the weight grows without bound as sigma falls; take prediction \"edm\", which divides it out");
  if (!schedule->unit_time() && (config.time_shift != 1 || config.time_sampling == "logit_normal"))
    throw Error(fmt::format("diffusion.time_shift and time_sampling \"logit_normal\" are for times in (0, 1), and schedule \"{}\" counts in sigma: take "
                            "\"log_normal\" and time_mean",
                            config.schedule));
  return schedule;
}

}  // namespace uvit
