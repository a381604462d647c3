#include <torch/torch.h>

#include <cmath>

#include "diffusion/parameterisation.h"
#include "io/safetensors.h"
#include "model/uvit.h"
#include "samplers/sampler.h"
#include "support/fixtures.h"
#include "support/tensors.h"
#include "support/uvit_cases.h"

using namespace uvit;
using namespace uvit::test;

namespace {

std::shared_ptr<UViT> load_network(at::ScalarType dtype) {
  for (const UViTCase& test : uvit_cases()) {
    if (test.name != "uvit_uncond") continue;
    auto model = std::make_shared<UViT>(test.options);
    load_parameters(*model, read_safetensors(fixtures() / (test.name + "_state.safetensors")), test.name);
    model->to(dtype);
    return model;
  }
  throw std::runtime_error("uvit.json has no case uvit_uncond");
}

/// Error of this machine's float32 table of frequencies against the fixtures': exp of the math library is not the same to the last bit on every CPU,
/// and one last bit moves an angle of 999 by 6e-5 (README of the fixtures, section 2). Where the table agrees, float64 is held to its own tolerance.
double time_table_error(std::int64_t dim) {
  const TensorFile file = read_safetensors(fixtures() / "uvit_timestep_embedding.safetensors");
  return max_abs(timestep_embedding(to_torch(file.at("timesteps")), dim) - to_torch(file.at("emb_dim" + std::to_string(dim))));
}

Denoiser network_denoiser(const std::shared_ptr<UViT>& model, const Schedule& schedule) {
  return make_denoiser([model](const at::Tensor& x, const at::Tensor& t) { return model->forward(x, t); }, schedule, find_parameterisation("eps"));
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
      const auto model = load_network(dtype);
      const at::Tensor reference = to_torch(file.at(prefix + (wide ? ".trajectory.f64" : ".trajectory.f32")));
      const NoiseSource noise = [&](std::int64_t k) { return noises[k - 1].to(dtype); };
      const at::Tensor ours =
          trajectory(solver, network_denoiser(model, *schedule), *schedule, load_tensor(file, "x_init", dtype), noise, options);
      const double share = wide ? std::fmax(1e-9, 0.1 * time_table_error(model->options().embed_dim)) : cosine ? 5e-5 : 1e-5;
      check_tensor(prefix + (wide ? " f64" : " f32"), ours, reference, share * max_abs(reference));
    }
  }
  CHECK(cases > 0);
}

TEST_CASE("DPM-Solver++ 2M agrees with the official multistep solver up to the last step, which ours takes on to t = 0") {
  const torch::NoGradGuard no_grad;
  const TensorFile file = read_safetensors(fixtures() / "diffusion_dpm_solver_pp.safetensors");
  const auto schedule = make_schedule("vp_linear");
  int cases = 0;
  const nlohmann::json runs = fixture_json("diffusion.json").at("dpm_solver_pp");
  for (const auto& [name, run] : runs.items()) {
    const nlohmann::json& s = run.at("settings");
    if (s.value("method", "").substr(0, 9) != "multistep" || s.at("order") != 2 || s.at("skip_type") != "logSNR") continue;
    if (s.at("predict_x0") != true || s.at("schedule") != "linear" || s.at("solver_type") != "dpm_solver") continue;
    ++cases;
    const std::int64_t steps = s.at("steps");
    SamplerOptions options;
    options.num_steps = steps + 1;
    options.t_start = s.at("T");
    options.t_end = s.at("eps");
    const SolverRow& solver = find_solver("dpm_solver_pp_2m");
    const auto check = [&](const std::string& what, const Denoiser& denoiser, const std::string& start, double share) {
      const at::Tensor reference = to_torch(file.at(name + "." + what + ".f64"));
      const at::Tensor ours = trajectory(solver, denoiser, *schedule, load_tensor(file, start, at::kDouble), {}, options)[steps];
      check_tensor(name + "." + what, ours, reference, share * max_abs(reference));
    };
    check("toy_sample", gaussian_denoiser(file, *schedule), "x_uncond", 1e-8);
    const auto model = load_network(at::kDouble);
    check("sample", network_denoiser(model, *schedule), "x_uncond", std::fmax(1e-8, 0.1 * time_table_error(model->options().embed_dim)));
  }
  CHECK(cases > 0);
}

TEST_CASE("DDIM is the official DPM-Solver of order 1 up to the last step, which ours takes on to t = 0") {
  const torch::NoGradGuard no_grad;
  const TensorFile file = read_safetensors(fixtures() / "diffusion_dpm_solver_pytorch.safetensors");
  const auto schedule = make_schedule("vp_linear");
  int cases = 0;
  const nlohmann::json runs = fixture_json("diffusion.json").at("dpm_solver_pytorch");
  for (const auto& [name, run] : runs.items()) {
    const nlohmann::json& s = run.at("settings");
    if (s.value("order", 0) != 1 || s.value("skip_type", "") != "time_uniform") continue;
    ++cases;
    const std::int64_t steps = s.at("steps");
    SamplerOptions options;
    options.num_steps = steps + 1;
    options.t_start = s.at("T");
    options.t_end = s.at("eps");
    const at::Tensor reference = to_torch(file.at(name + ".toy_sample.f64"));
    const at::Tensor ours =
        trajectory(find_solver("ddim"), gaussian_denoiser(file, *schedule), *schedule, load_tensor(file, "x_init", at::kDouble), {}, options)[steps];
    check_tensor(name, ours, reference, 1e-8 * max_abs(reference));
  }
  CHECK(cases > 0);
}
