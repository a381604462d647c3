#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <map>

#include "diffusion/loss.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

using Quantity = std::function<double(const Schedule&, double t)>;

/// The official names of what diffusion_tables holds, in terms of ours.
const std::map<std::string, Quantity>& quantities() {
  static const std::map<std::string, Quantity> map = {
      {"cum_alpha", [](const Schedule& s, double t) { return std::pow(s.alpha(t), 2); }},
      {"cum_beta", [](const Schedule& s, double t) { return std::pow(s.sigma(t), 2); }},
      {"snr", [](const Schedule& s, double t) { return std::exp(2 * s.lambda(t)); }},
      {"nsr", [](const Schedule& s, double t) { return std::exp(-2 * s.lambda(t)); }},
      {"drift_coefficient", [](const Schedule& s, double t) { return s.drift(t); }},
      {"squared_diffusion", [](const Schedule& s, double t) { return s.squared_diffusion(t); }},
      {"squared_diffusion_integral_0_t", [](const Schedule& s, double t) { return -2 * s.log_alpha(t); }},
      {"diffusion", [](const Schedule& s, double t) { return std::sqrt(s.squared_diffusion(t)); }},
      {"skip_alpha_s0.3t_t", [](const Schedule& s, double t) { return std::exp(2 * (s.log_alpha(t) - s.log_alpha(0.3 * t))); }},
      {"log_alpha", [](const Schedule& s, double t) { return s.log_alpha(t); }},
      {"std", [](const Schedule& s, double t) { return s.sigma(t); }},
      {"lambda", [](const Schedule& s, double t) { return s.lambda(t); }},
      {"inverse_lambda_of_lambda", [](const Schedule& s, double t) { return s.lambda_inverse(s.lambda(t)); }},
  };
  return map;
}

const std::map<std::string, std::string> kSchedules = {
    {"vpsde", "vp_linear"}, {"cosine", "vp_cosine"}, {"dpm_linear", "vp_linear"}, {"dpm_cosine", "vp_cosine"}};

/// README of the fixtures, section 5: share of the largest reference.
double tolerance(const std::string& family, const std::string& quantity, bool wide) {
  if (wide) return 1e-11;
  if (quantity == "lambda") return 3e-4;
  if (quantity == "std" || quantity == "inverse_lambda_of_lambda") return 1e-5;
  if (family == "cosine" && quantity == "nsr") return 1e-5;
  if (family == "cosine" && quantity == "snr") return 5e-4;
  return 2e-6;
}

/// Entries that the reference itself gets wrong: the cosine tables at t = 1, and their ratios at t = 0.
bool comparable(const std::string& family, const std::string& quantity, double t) {
  if (family != "cosine") return true;
  return t < 1 && (t > 0 || (quantity != "snr" && quantity != "nsr"));
}

/// max |value - reference| <= share * the largest finite reference.
void check_relative(const std::string& what, const std::vector<double>& value, const std::vector<double>& reference, double share) {
  double largest = 0;
  for (const double r : reference) largest = std::isfinite(r) ? std::fmax(largest, std::abs(r)) : largest;
  check_close(what, value, reference, share * largest);
}

std::vector<double> doubles(const TensorFile& file, const std::string& name) { return file.at(name).to_double(); }

}  // namespace

TEST_CASE("continuous schedules agree with the official tables") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_tables.safetensors");
  int compared = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const std::size_t dot = name.find('.'), end = name.rfind('.');
    const std::string family = name.substr(0, dot), quantity = name.substr(dot + 1, end - dot - 1), suffix = name.substr(end);
    if (quantity == "t") continue;
    INFO(name);
    REQUIRE(kSchedules.count(family) == 1);
    REQUIRE(quantities().count(quantity) == 1);
    const auto schedule = make_schedule(kSchedules.at(family));
    const std::vector<double> t = doubles(file, family + ".t" + suffix), all = tensor.to_double();
    std::vector<double> value, reference;
    for (std::size_t i = 0; i < t.size(); ++i) {
      if (!comparable(family, quantity, t[i])) continue;
      value.push_back(quantities().at(quantity)(*schedule, t[i]));
      reference.push_back(all[i]);
    }
    check_relative(name, value, reference, tolerance(family, quantity, suffix == ".f64"));
    ++compared;
  }
  CHECK(compared > 0);
}

TEST_CASE("sd_discrete agrees with the official step tables") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_discrete.safetensors");
  const auto schedule = make_schedule("sd_discrete");
  // Step 0 is clean; the interpolated schedule begins at step 1.
  const auto log_cum_alpha = [&](double n) { return n == 0 ? 0.0 : 2 * schedule->log_alpha(n / 1000); };
  const std::vector<double> pairs = doubles(file, "skip_pairs_s_t");
  std::map<std::string, std::vector<double>> ours;
  for (int n = 0; n <= 1000; ++n) {
    const double cum = log_cum_alpha(n), step = n == 0 ? 0.0 : cum - log_cum_alpha(n - 1);
    ours["alphas_1001"].push_back(std::exp(step));
    ours["betas_1001"].push_back(-std::expm1(step));
    if (n > 0) ours["_betas"].push_back(-std::expm1(step));
    ours["cum_alphas_1001"].push_back(std::exp(cum));
    ours["cum_betas_1001"].push_back(-std::expm1(cum));
    ours["snr_1001"].push_back(std::exp(cum) / -std::expm1(cum));
  }
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    const double s = log_cum_alpha(pairs[i]), t = log_cum_alpha(pairs[i + 1]);
    ours["skip_alphas"].push_back(std::exp(t - s));
    ours["skip_betas"].push_back(-std::expm1(t - s));
    ours["tilde_beta"].push_back(std::expm1(t - s) * std::expm1(s) / -std::expm1(t));
  }
  ours["snr_1001"][0] = INFINITY;
  for (const auto& [name, values] : ours) check_relative(name, values, doubles(file, name), name == "cum_betas_1001" ? 1e-9 : 1e-12);
}

TEST_CASE("sd_discrete interpolates between the steps and beyond them as DPM-Solver does") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_discrete.safetensors");
  const auto schedule = make_schedule("sd_discrete");
  const auto along = [&](const std::string& times, const Quantity& quantity) {
    std::vector<double> values;
    for (const double t : doubles(file, times)) values.push_back(quantity(*schedule, t));
    return values;
  };
  const auto check = [&](const std::string& name, const std::string& times, const std::string& quantity, double budget) {
    check_close(name, along(times, quantities().at(quantity)), doubles(file, name), budget);
  };
  check("dpm_discrete.log_alpha_grid", "dpm_discrete.t_grid", "log_alpha", 5e-6);
  check("dpm_discrete.log_alpha", "dpm_discrete.t", "log_alpha", 5e-6);
  check("dpm_discrete.std", "dpm_discrete.t", "std", 5e-6);
  check("dpm_discrete.lambda", "dpm_discrete.t", "lambda", 2e-4);
  check("dpm_discrete.inverse_lambda", "dpm_discrete.t", "inverse_lambda_of_lambda", 2e-4);
}

TEST_CASE("add_noise agrees with the official q_sample") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_discrete.safetensors");
  std::vector<double> t = doubles(file, "q_sample.n");
  for (double& n : t) n /= 1000;
  const at::Tensor reference = to_torch(file.at("q_sample.xn"));
  const at::Tensor xn = add_noise(to_torch(file.at("q_sample.x0")), to_torch(file.at("q_sample.eps")), t, *make_schedule("sd_discrete"));
  CHECK(xn.scalar_type() == at::kFloat);
  check_tensor("q_sample.xn", xn, reference, 2e-7 * max_abs(reference));
}
