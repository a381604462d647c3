#include "diffusion/schedule.h"

#include <array>
#include <cmath>

#include "core/name_table.h"
#include "diffusion/schedules.h"

namespace uvit {

double Schedule::alpha(double t) const { return std::exp(log_alpha(t)); }

double Schedule::sigma(double t) const { return std::sqrt(std::fmax(0.0, -std::expm1(2 * log_alpha(t)))); }

double Schedule::lambda(double t) const { return log_alpha(t) - std::log(sigma(t)); }

std::span<const ScheduleRow> schedule_table() {
  static const std::array<ScheduleRow, 3> table = {{
      {"vp_linear", "VP-SDE, beta 0.1 .. 20 (U-ViT's continuous training), arXiv:2011.13456", make_vp_linear},
      {"vp_cosine", "squared cosine, s = 0.008, sampling from t = 0.9946, arXiv:2102.09672", make_vp_cosine},
      {"sd_discrete", "1000 steps, scaled linear beta 0.00085 .. 0.012 (U-ViT's latent models), arXiv:2112.10752", make_sd_discrete},
  }};
  return table;
}

std::unique_ptr<Schedule> make_schedule(const std::string& name) { return find_row(schedule_table(), "schedule", name).make(); }

}  // namespace uvit
