#include <torch/torch.h>

#include <catch2/catch.hpp>

#include "diffusion/loss.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/tensors.h"
#include "support/uvit_cases.h"
#include "train/adamw.h"
#include "train/ema.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// Settings of one official run.
struct Settings {
  explicit Settings(const nlohmann::json& run) {
    const auto& all = run.at("optimizer");
    optimizer.lr = all.at("opt").at("lr");
    optimizer.weight_decay = all.at("opt").at("weight_decay");
    optimizer.betas = all.at("opt").at("betas").get<std::array<double, 2>>();
    optimizer.eps = run.at("eps");
    optimizer.warmup_steps = all.at("warmup");
    optimizer.clip_grad_norm = all.at("clip");
    ema = all.at("ema");
  }
  OptimizerConfig optimizer;
  double ema = 0;
};

struct Trace {
  std::vector<double> loss, lr, grad_norm;
  NamedTensors parameters, ema;
};

/// The official steps, with this program's network, loss, clipping, optimizer and averages.
Trace run_steps(const nlohmann::json& json, const Settings& settings, at::ScalarType dtype) {
  const TensorFile data = read_safetensors(fixtures() / "optim_data.safetensors");
  const at::Tensor x0 = load_tensor(data, "x0", dtype), eps = load_tensor(data, "eps", dtype);
  UViT model(read_uvit_options(json.at("config")));
  model.to(dtype);
  load_parameters(model, read_safetensors(fixtures() / "optim_init_state.safetensors"), "optim_init_state");
  Trace trace;
  trace.parameters = named_parameters(model);
  AdamW optimizer(settings.optimizer, trace.parameters);
  Ema ema(settings.ema, trace.parameters);
  const auto schedule = make_schedule("vp_linear");
  const Network network = [&](const at::Tensor& x, const at::Tensor& t) { return model.forward(x, t); };
  for (std::int64_t step = 0; step < x0.size(0); ++step) {
    const std::vector<double> t = values_of(to_torch(data.at("t"))[step]);
    model.zero_grad();
    const at::Tensor loss = diffusion_loss(network, x0[step], eps[step], t, *schedule, find_parameterisation("eps")).mean();
    loss.backward();
    trace.loss.push_back(loss.item<double>());
    trace.grad_norm.push_back(clip_gradients(trace.parameters, settings.optimizer.clip_grad_norm));
    trace.lr.push_back(learning_rate(settings.optimizer, step, x0.size(0)));
    optimizer.step(trace.lr.back());
    ema.update(trace.parameters);
  }
  CHECK(optimizer.steps_done() == x0.size(0));
  trace.ema = ema.parameters();
  return trace;
}

void check_relative(const std::string& what, const std::vector<double>& values, const std::vector<double>& reference, double tolerance) {
  REQUIRE(values.size() == reference.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    check_close(what + " of step " + std::to_string(i), {values[i]}, {reference[i]}, tolerance * std::abs(reference[i]));
}

void check_parameters(const TensorFile& reference, const std::string& prefix, const NamedTensors& parameters, double tolerance) {
  for (const auto& [name, parameter] : parameters) check_tensor(prefix + name, parameter, to_torch(reference.at(prefix + name)), tolerance);
}

}  // namespace

// Tolerances: README of the fixtures, section 4.
TEST_CASE("twenty official optimizer steps in float32") {
  const nlohmann::json json = fixture_json("optim.json");
  for (const auto& [name, run] : json.at("runs").items()) {
    INFO(name);
    const TensorFile reference = read_safetensors(fixtures() / ("optim_" + name + ".safetensors"));
    const Settings settings(run);
    const Trace trace = run_steps(json, settings, torch::kFloat32);
    const bool slow = settings.optimizer.warmup_steps > static_cast<std::int64_t>(trace.loss.size());  // parameters hardly move: tighter
    check_relative("loss", trace.loss, reference.at("loss.f32").to_double(), 5e-6);
    check_relative("gradient norm", trace.grad_norm, reference.at("grad_norm_before_clip.f32").to_double(), 2e-5);
    check_relative("learning rate", trace.lr, reference.at("lr_used").to_double(), 1e-14);
    check_parameters(reference, "final.", trace.parameters, slow ? 3e-6 : 1e-5);
    check_parameters(reference, "ema.", trace.ema, slow ? 5e-6 : 1e-5);
  }
}

TEST_CASE("twenty official optimizer steps in float64") {
  const nlohmann::json json = fixture_json("optim.json");
  int with_parameters = 0;
  for (const auto& [name, run] : json.at("runs").items()) {
    INFO(name);
    const TensorFile reference = read_safetensors(fixtures() / ("optim_" + name + ".safetensors"));
    const Trace trace = run_steps(json, Settings(run), torch::kFloat64);
    check_relative("loss", trace.loss, reference.at("loss.f64").to_double(), 1e-9);
    check_relative("gradient norm", trace.grad_norm, reference.at("grad_norm_before_clip.f64").to_double(), 1e-9);
    if (!reference.find("final_f64." + trace.parameters.front().first)) continue;
    check_parameters(reference, "final_f64.", trace.parameters, 1e-8);
    ++with_parameters;
  }
  CHECK(with_parameters > 0);
}
