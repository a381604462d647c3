#include <torch/torch.h>

#include "train/muon.h"

#include <array>
#include <cmath>

#include "core/error.h"
#include "train/fused_loop.h"

namespace uvit {
namespace {

bool is_block_matrix(const std::string& name, const at::Tensor& parameter) {
  const bool in_block = name.starts_with("in_blocks.") || name.starts_with("mid_block.") || name.starts_with("out_blocks.");
  return in_block && parameter.dim() == 2;
}

NamedTensors select(const NamedTensors& parameters, bool matrices) {
  NamedTensors selected;
  for (const auto& item : parameters)
    if (is_block_matrix(item.first, item.second) == matrices) selected.push_back(item);
  return selected;
}

}  // namespace

at::Tensor orthogonalise(const at::Tensor& m) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  const bool tall = m.size(0) > m.size(1);
  at::Tensor x = tall ? m.t() : m;  // the smaller Gram matrix
  x = x / x.norm().clamp_min(1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, kB, kC), x, kA);
  }
  return tall ? x.t() : x;
}

std::int64_t stacked_maps(const std::string& name) {
  struct Stack {
    const char* ending;
    std::int64_t maps;
  };
  constexpr std::array<Stack, 3> stacks = {{{".attn.qkv.weight", 3}, {".mlp.w12.weight", 2}, {".adaLN_modulation.1.weight", 6}}};
  for (const auto& [ending, maps] : stacks)
    if (name.ends_with(ending)) return maps;
  return 1;
}

Muon::Muon(const OptimizerConfig& config, NamedTensors parameters)
    : config_(config), matrices_(select(parameters, true)), rest_(config, select(parameters, false)) {
  if (config.lr <= 0) throw Error("optimizer.lr = 0: muon takes the schedule of optimizer.muon_lr from it; give both a rate");
  for (const auto& [name, parameter] : matrices_) momentum_.push_back(torch::zeros_like(parameter.detach()));
}

void Muon::step(double lr) {
  const torch::NoGradGuard no_grad;
  rest_.step(lr);
  const double rate = config_.muon_lr * (lr / config_.lr), beta = config_.muon_momentum;
  for (std::size_t i = 0; i < matrices_.size(); ++i) {
    const auto& [name, parameter] = matrices_[i];
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) continue;
    momentum_[i].lerp_(gradient, 1 - beta);
    at::Tensor weight = parameter.detach();
    weight.mul_(1 - rate * config_.weight_decay);
    const std::int64_t maps = stacked_maps(name), rows = weight.size(0) / maps;
    const double scale = std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(weight.size(1))));
    const at::Tensor update = gradient.lerp(momentum_[i], beta);
    for (std::int64_t map = 0; map < maps; ++map)
      weight.narrow(0, map * rows, rows).sub_(orthogonalise(update.narrow(0, map * rows, rows)), rate * scale);
  }
}

NamedTensors Muon::state() const {
  NamedTensors state = rest_.state();
  for (std::size_t i = 0; i < matrices_.size(); ++i) state.emplace_back("muon." + matrices_[i].first, momentum_[i]);
  return state;
}

void Muon::load(const NamedTensors& state) {
  rest_.load(state);
  for (std::size_t i = 0; i < matrices_.size(); ++i) copy_named(state, "muon." + matrices_[i].first, momentum_[i]);
}

}  // namespace uvit
