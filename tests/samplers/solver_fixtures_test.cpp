#include <torch/torch.h>

#include <cmath>

#include "diffusion/guidance.h"
#include "diffusion/parameterisation.h"
#include "diffusion/wrappers.h"
#include "io/safetensors.h"
#include "model/uvit.h"
#include "samplers/dpm_solver.h"
#include "samplers/time_grid.h"
#include "support/fixtures.h"
#include "support/tensors.h"
#include "support/timestep_frequencies.h"
#include "support/uvit_cases.h"

using namespace uvit;
using namespace uvit::test;

namespace {

std::shared_ptr<UViT> load_network(const std::string& name, at::ScalarType dtype) {
  for (const UViTCase& test : uvit_cases()) {
    if (test.name != name) continue;
    auto model = std::make_shared<UViT>(test.options);
    load_parameters(*model, read_safetensors(fixtures() / (test.name + "_state.safetensors")), test.name);
    model->to(dtype);
    use_fixture_frequencies(*model);
    return model;
  }
  throw std::runtime_error("uvit.json has no case " + name);
}

Denoiser network_denoiser(const std::shared_ptr<UViT>& model, const Schedule& schedule, const at::Tensor& y = {}) {
  return make_denoiser([model, y](const at::Tensor& x, const at::Tensor& t) { return model->forward(x, t, y); }, schedule, find_parameterisation("eps"));
}

/// x_init and x after every step: [n + 1, B, C, H, W].
at::Tensor trajectory(const SolverRow& solver, const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                      SamplerOptions options) {
  std::vector<at::Tensor> points = {x_init};
  options.on_step = [&](std::int64_t, const at::Tensor& x) { points.push_back(x); };
  solver.solve(denoiser, schedule, x_init, noise, options);
  return at::stack(points);
}

bool ends_with(const std::string& text, const std::string& end) { return text.size() >= end.size() && text.substr(text.size() - end.size()) == end; }

/// The exact noise prediction for data N(mu, std^2), element by element.
Denoiser gaussian_denoiser(const TensorFile& file, const Schedule& schedule) {
  const at::Tensor mu = load_tensor(file, "toy_mu", at::kDouble), std = load_tensor(file, "toy_std", at::kDouble);
  return [mu, std, &schedule](const at::Tensor& x, const std::vector<double>& t) -> Prediction {
    const double alpha = schedule.alpha(t[0]), sigma = schedule.sigma(t[0]);
    const at::Tensor eps = sigma * (x - alpha * mu) / (alpha * alpha * std.square() + sigma * sigma);
    return {(x - sigma * eps) / alpha, eps};
  };
}

Denoiser watched(const Denoiser& denoiser, std::vector<double>& times) {
  return [&denoiser, &times](const at::Tensor& x, const std::vector<double>& t) {
    times.push_back(t[0]);
    return denoiser(x, t);
  };
}

const std::map<std::string, std::string> kGrids = {
    {"time_uniform", "time_uniform"}, {"logSNR", "log_snr"}, {"time_quadratic", "time_quadratic"}, {"t2", "t2"}};

/// A run of diffusion.json in our terms.
struct OfficialRun {
  std::string name;
  nlohmann::json run, settings;
  SamplerOptions options;
  std::unique_ptr<Schedule> schedule;
  SinglestepPlan plan;

  OfficialRun(std::string name_, const nlohmann::json& run_) : name(std::move(name_)), run(run_), settings(run_.at("settings")) {
    schedule = make_schedule(settings.value("schedule", "linear") == "discrete" ? "sd_discrete" : "vp_linear");
    options.num_steps = settings.at("steps");
    options.t_start = settings.at("T");
    options.t_end = settings.at("eps");
    if (settings.contains("skip_type")) options.grid = kGrids.at(settings.at("skip_type"));
    plan.reading = settings.value("predict_x0", false) ? Reading::data : Reading::noise;
    plan.taylor = settings.value("solver_type", "") == "taylor";
    plan.denoise = settings.value("denoise", false);
    plan.spanning = settings.value("method", "") == "fast";
    plan.grid = "log_snr";
    if (run.contains("orders")) plan.orders = run.at("orders").get<std::vector<std::int64_t>>();
  }
  bool is_multistep() const { return settings.value("method", "").substr(0, 9) == "multistep"; }
  bool is_adaptive() const { return settings.value("adaptive_step_size", false); }
  bool is_guided() const { return settings.value("cfg", false); }

  SampleResult solve(const Denoiser& network, const at::Tensor& x) const {
    const Denoiser denoiser = settings.value("thresholding", false) ? threshold(network, *schedule, 0.995) : network;
    const std::int64_t order = settings.value("order", 3);
    if (is_adaptive()) {
      SamplerOptions any = options;
      any.num_steps = 10;  // the official code is called with 0, which ours refuses; only progress is counted in it
      return adaptive(denoiser, *schedule, x, any, {.order = order, .official = true});
    }
    if (is_multistep()) return multistep(denoiser, *schedule, x, {}, options, {.order = order, .reading = plan.reading, .taylor = plan.taylor, .to_data = false});
    return singlestep(denoiser, *schedule, x, options, plan);
  }
};

/// Calls `check` for every run of a solver file, and counts them.
template <class Check>
int for_each_run(const std::string& solver, Check check) {
  int runs = 0;
  const nlohmann::json all = fixture_json("diffusion.json").at(solver);
  for (const auto& [name, run] : all.items()) {
    INFO(solver << " " << name);
    check(OfficialRun(name, run));
    ++runs;
  }
  return runs;
}

}  // namespace

TEST_CASE("Euler's trajectories agree with the official ones in float32 and float64") {
  const torch::NoGradGuard no_grad;
  const TensorFile file = read_safetensors(fixtures() / "diffusion_euler.safetensors");
  const std::string tail = ".trajectory.f64";
  const at::Tensor noises = to_torch(file.at("noise"));
  int cases = 0;
  for (const auto& [name, tensor] : file.tensors) {
    if (!ends_with(name, tail)) continue;
    ++cases;
    const std::string prefix = name.substr(0, name.size() - tail.size());  // ode.vpsde
    const SolverRow& solver = find_solver(prefix.substr(0, 3) == "ode" ? "euler_ode" : "euler_maruyama_sde");
    const bool cosine = ends_with(prefix, "cosine");
    const auto schedule = make_schedule(cosine ? "vp_cosine" : "vp_linear");
    SamplerOptions options;
    options.num_steps = tensor.shape.front() - 1;
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      const bool wide = dtype == at::kDouble;
      const auto model = load_network("uvit_uncond", dtype);
      const at::Tensor reference = to_torch(file.at(prefix + (wide ? ".trajectory.f64" : ".trajectory.f32")));
      const NoiseSource noise = [&](std::int64_t k) { return noises[k - 1].to(dtype); };
      const at::Tensor ours =
          trajectory(solver, network_denoiser(model, *schedule), *schedule, load_tensor(file, "x_init", dtype), noise, options);
      check_tensor(prefix + (wide ? " f64" : " f32"), ours, reference, (wide ? 1e-9 : cosine ? 5e-5 : 1e-5) * max_abs(reference));
    }
  }
  CHECK(cases > 0);
}

TEST_CASE("every run of both official DPM-Solver files, on Gaussian data and on a network, in float64") {
  const torch::NoGradGuard no_grad;
  const auto uncond = load_network("uvit_uncond", at::kDouble), cond = load_network("uvit_cond", at::kDouble);
  int runs = 0;
  for (const std::string solver : {"dpm_solver_pytorch", "dpm_solver_pp"}) {
    const TensorFile file = read_safetensors(fixtures() / ("diffusion_" + solver + ".safetensors"));
    runs += for_each_run(solver, [&](const OfficialRun& run) {
      const double share = run.is_adaptive() ? 1e-3 : 1e-8;
      const auto check = [&](const std::string& what, const Denoiser& denoiser, std::int64_t nfe) {
        const at::Tensor reference = to_torch(file.at(run.name + "." + what + ".f64"));
        // dpm_solver_pp.safetensors: x_init belongs to the guided network alone, the closed form starts from x_uncond in every run.
        const bool unconditional = solver == "dpm_solver_pp" && (!run.is_guided() || what == "toy_sample");
        const SampleResult ours = run.solve(denoiser, load_tensor(file, unconditional ? "x_uncond" : "x_init", at::kDouble));
        check_tensor(run.name + "." + what, ours.x0, reference, share * max_abs(reference));
        CHECK(ours.nfe == nfe);
      };
      const Denoiser toy = gaussian_denoiser(file, *run.schedule);
      std::vector<double> times;
      check("toy_sample", watched(toy, times), run.run.value("toy_f64_nfe", run.run.at("nfe").get<std::int64_t>()));
      if (const HostTensor* official = file.find(run.name + ".model_times.f64"); official && !run.is_adaptive())
        check_close("model times", times, official->to_double(), 1e-10);
      if (run.is_guided()) {
        const at::Tensor y = to_torch(file.at("y")), null = at::full_like(y, fixture_json("diffusion.json").at("cfg").at("null_label_K").get<int>());
        const double scale = fixture_json("diffusion.json").at("cfg").at("scale");
        const Denoiser c = network_denoiser(cond, *run.schedule, y), u = network_denoiser(cond, *run.schedule, null);
        check("sample", guide(c, pair_of(c, u), *run.schedule, {.scale = scale + 1}), run.run.at("nfe"));
      } else {
        check("sample", network_denoiser(uncond, *run.schedule), run.run.at("nfe"));
      }
    });
  }
  CHECK(runs == 21);
}

TEST_CASE("the grids are the official ones") {
  int grids = 0;
  for (const std::string solver : {"dpm_solver_pytorch", "dpm_solver_pp"}) {
    const TensorFile file = read_safetensors(fixtures() / ("diffusion_" + solver + ".safetensors"));
    for_each_run(solver, [&](const OfficialRun& run) {
      const HostTensor* official = file.find(run.name + ".time_grid.f64");
      if (!official) return;
      const std::vector<double> reference = official->to_double();
      check_close(run.name, time_grid(*run.schedule, run.options, "log_snr", static_cast<std::int64_t>(reference.size())), reference, 1e-12);
      ++grids;
    });
  }
  CHECK(grids > 10);
}

TEST_CASE("the rows of the table are the official methods") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_dpm_solver_pytorch.safetensors");
  const TensorFile pp = read_safetensors(fixtures() / "diffusion_dpm_solver_pp.safetensors");
  const auto check = [&](const OfficialRun& run, const TensorFile& of, const std::string& start, const std::string& row, bool to_data = false) {
    SamplerOptions options = run.options;
    options.order = run.settings.value("order", 0);
    options.num_steps += to_data;
    const at::Tensor reference = to_torch(of.at(run.name + ".toy_sample.f64"));
    const at::Tensor points = trajectory(find_solver(row), gaussian_denoiser(of, *run.schedule), *run.schedule, load_tensor(of, start, at::kDouble), {}, options);
    check_tensor(row + " " + run.name, points[points.size(0) - (to_data ? 2 : 1)], reference, 1e-8 * max_abs(reference));
  };
  int rows = 0;
  for_each_run("dpm_solver_pytorch", [&](const OfficialRun& run) {
    if (run.is_adaptive()) return;
    const bool fast = run.settings.at("fast_version");
    if (fast) CHECK(fast_orders(run.options.num_steps) == run.plan.orders);
    check(run, file, "x_init", fast ? "dpm_solver_fast" : "dpm_solver_singlestep");
    ++rows;
    // DDIM is order 1 up to the last step, which ours takes on to t = 0.
    if (run.settings.value("order", 0) == 1) check(run, file, "x_init", "ddim", true);
  });
  for_each_run("dpm_solver_pp", [&](const OfficialRun& run) {
    const bool plain = run.plan.reading == Reading::data && !run.plan.taylor && !run.settings.value("thresholding", false);
    if (!plain) return;
    if (run.is_multistep()) {
      check(run, pp, "x_uncond", run.settings.at("order") == 2 ? "dpm_solver_pp_2m" : "dpm_solver_pp_3m", true);
    } else if (run.plan.spanning && run.settings.at("order") == 3) {
      check(run, pp, "x_uncond", "dpm_solver_pp_fast");
    } else if (!run.plan.spanning) {
      check(run, pp, "x_uncond", "dpm_solver_pp_singlestep");
    } else {
      return;
    }
    ++rows;
  });
  CHECK(rows == 7 + 2 + 3 + 1);
}

TEST_CASE("guided latent sampling agrees with the official code in float32") {
  const torch::NoGradGuard no_grad;
  const TensorFile file = read_safetensors(fixtures() / "diffusion_dpm_solver_pp.safetensors");
  const nlohmann::json cfg = fixture_json("diffusion.json").at("cfg");
  const auto model = load_network("uvit_cond", at::kFloat);
  const at::Tensor y = to_torch(file.at("y")), null = at::full_like(y, cfg.at("null_label_K").get<int>());
  int runs = 0;
  for_each_run("dpm_solver_pp", [&](const OfficialRun& run) {
    if (!run.is_guided()) return;
    ++runs;
    const Denoiser c = network_denoiser(model, *run.schedule, y), u = network_denoiser(model, *run.schedule, null);
    const at::Tensor reference = to_torch(file.at(run.name + ".sample"));
    const Denoiser guided = guide(c, pair_of(c, u), *run.schedule, {.scale = cfg.at("scale").get<double>() + 1});
    check_tensor(run.name, run.solve(guided, to_torch(file.at("x_init"))).x0, reference, 5e-5 * max_abs(reference));
  });
  CHECK(runs == 4);
}

TEST_CASE("EDM's sampler agrees with the official one: its noise levels, churn and result") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_edm.safetensors");
  const at::Tensor mu = to_torch(file.at("mu")), variance = to_torch(file.at("data_std")).square();
  const auto schedule = make_schedule("edm");
  const nlohmann::json runs = fixture_json("diffusion.json").at("edm");
  int cases = 0;
  for (const auto& [name, run] : runs.items()) {
    INFO(name);
    ++cases;
    const nlohmann::json& s = run.at("settings");
    SamplerOptions options;
    options.num_steps = s.at("num_steps");
    options.t_start = s.at("sigma_max");
    options.t_end = s.at("sigma_min");
    options.rho = s.at("rho");
    options.churn = s.at("S_churn");
    options.churn_low = s.at("S_min");
    if (s.at("S_max").is_number()) options.churn_high = s.at("S_max");
    options.churn_noise = s.at("S_noise");
    std::vector<double> sigmas;
    const Denoiser denoiser = [&](const at::Tensor& x, const std::vector<double>& t) -> Prediction {
      sigmas.push_back(t[0]);
      const at::Tensor x0 = (variance * x + t[0] * t[0] * mu) / (variance + t[0] * t[0]);
      return {x0, (x - x0) / t[0]};
    };
    const at::Tensor noises = to_torch(file.at(name + ".noise"));
    const NoiseSource noise = [&](std::int64_t k) { return noises[k - 1]; };
    const SampleResult ours = find_solver("edm_heun").solve(denoiser, *schedule, to_torch(file.at("latents")) * options.t_start, noise, options);
    const at::Tensor reference = to_torch(file.at(name + ".sample"));
    check_tensor("sample", ours.x0, reference, 1e-9 * max_abs(reference));
    check_close("sigmas", sigmas, file.at(name + ".denoiser_sigmas").to_double(), 1e-9 * options.t_start);
    CHECK(ours.nfe == run.at("denoiser_calls").get<std::int64_t>());
  }
  CHECK(cases == 3);
}
