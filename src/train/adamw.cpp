#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/adamw.h"
#include "train/ema.h"
#include "train/fused_loop.h"

namespace uvit {

double learning_rate(const OptimizerConfig& config, std::int64_t step, std::int64_t steps) {
  if (config.warmup_steps > 0 && step < config.warmup_steps)
    return config.lr * (static_cast<double>(step) / static_cast<double>(config.warmup_steps));
  if (config.lr_schedule == "inverse_sqrt")
    return config.lr / std::sqrt(std::max(static_cast<double>(step) / static_cast<double>(config.lr_reference_steps), 1.0));
  if (config.lr_schedule == "warmup_stable_decay") {
    const double left = static_cast<double>(steps - step) / static_cast<double>(steps);
    return config.lr * std::clamp(left / config.lr_decay_share, 0.0, 1.0);
  }
  if (config.lr_schedule != "cosine") return config.lr;
  const std::int64_t start = std::max<std::int64_t>(config.warmup_steps, 0);
  const double progress = steps > start ? static_cast<double>(step - start) / static_cast<double>(steps - start) : 1.0;
  return config.lr * 0.5 * (1 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

namespace {

/// Sum of squares in double. Partial sums of blocks of one fixed size are added in order, so the bits do not depend on the number of threads.
double sum_of_squares(const at::Tensor& tensor) {
  if (!tensor.is_cpu()) return tensor.to(at::kDouble).square().sum().item<double>();
  constexpr std::int64_t kBlock = 4096;
  const at::Tensor values = tensor.contiguous();
  const std::int64_t n = values.numel();
  std::vector<double> partial(static_cast<std::size_t>((n + kBlock - 1) / kBlock), 0.0);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "sum_of_squares", [&] {
    const scalar_t* x = values.const_data_ptr<scalar_t>();
    at::parallel_for(0, static_cast<std::int64_t>(partial.size()), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        double lane[8] = {};  // independent sums, which the compiler turns into vectors
        const std::int64_t first = b * kBlock, last = std::min(n, first + kBlock);
        for (std::int64_t i = first; i < last; ++i) {
          const auto value = static_cast<double>(x[i]);
          lane[(i - first) % 8] += value * value;
        }
        for (double sum : lane) partial[static_cast<std::size_t>(b)] += sum;
      }
    });
  });
  double total = 0;
  for (double sum : partial) total += sum;
  return total;
}

}  // namespace

double clip_gradients(const NamedTensors& parameters, double max_norm) {
  const torch::NoGradGuard no_grad;
  double squares = 0;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) squares += sum_of_squares(parameter.grad());
  const double norm = std::sqrt(squares);
  if (max_norm <= 0 || !std::isfinite(norm)) return norm;
  const double scale = max_norm / (norm + 1e-6);
  if (scale < 1)
    for (const auto& [name, parameter] : parameters)
      if (parameter.grad().defined()) parameter.mutable_grad().mul_(scale);
  return norm;
}

namespace {

/// `decay = "matrices"` decays the weights of linears and convolutions; biases, norms and attention scalars have one dimension.
bool is_decayed(const std::string& rule, const std::string& name, const at::Tensor& parameter) {
  return rule == "all" || (parameter.dim() > 1 && name != "pos_embed" && name != "register_tokens" && !name.starts_with("label_emb"));
}

/// Factors of one step, rounded to the parameter's type as torch's operations round them.
template <class T>
struct StepFactors {
  StepFactors(const AdamWStep& step, bool decayed)
      : keep(static_cast<T>(decayed ? step.keep : 1.0)),
        mix1(static_cast<T>(step.mix1)),
        beta2(static_cast<T>(step.beta2)),
        mix2(static_cast<T>(step.mix2)),
        minus_rate(static_cast<T>(step.minus_rate)),
        correction2(static_cast<T>(step.correction2)),
        eps(static_cast<T>(step.eps)) {}
  T keep, mix1, beta2, mix2, minus_rate, correction2, eps;
};

/// The update of one tensor and its averages in one pass over memory; every operation in torch's order.
template <class T>
void update(const StepFactors<T>& f, std::int64_t n, T* p, const T* g, T* m, T* v, const std::vector<AveragePass<T>>& averages) {
  constexpr std::int64_t kPiece = 2048;  // of all five arrays: stays in the first cache from the step to the averages
  for_each_range(n, [=, &averages](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = begin; first < end; first += kPiece) {
      const std::int64_t last = std::min(first + kPiece, end);
      for (std::int64_t i = first; i < last; ++i) {
        const T decayed = p[i] * f.keep;
        m[i] = m[i] + f.mix1 * (g[i] - m[i]);
        v[i] = v[i] * f.beta2 + f.mix2 * g[i] * g[i];
        p[i] = decayed + f.minus_rate * m[i] / (std::sqrt(v[i]) / f.correction2 + f.eps);
      }
      for (const AveragePass<T>& average : averages) average(p, first, last);
    }
  });
}

/// The same with ATen operations, for tensors on a GPU that FusedUpdate does not take.
void update_on_device(const StepFactors<double>& f, at::Tensor p, const at::Tensor& g, at::Tensor m, at::Tensor v) {
  p.mul_(f.keep);
  m.lerp_(g, f.mix1);
  v.mul_(f.beta2).addcmul_(g, g, f.mix2);
  p.addcdiv_(m, v.sqrt().div_(f.correction2).add_(f.eps), f.minus_rate);
}

}  // namespace

AdamW::AdamW(const OptimizerConfig& config, NamedTensors parameters) : config_(config), parameters_(std::move(parameters)) {
  for (const auto& [name, parameter] : parameters_) {
    TORCH_CHECK(parameter.is_contiguous(), "AdamW: parameter ", name, " is not contiguous");
    exp_avg_.push_back(torch::zeros_like(parameter.detach()));
    exp_avg_sq_.push_back(torch::zeros_like(parameter.detach()));
    decayed_.push_back(is_decayed(config_.decay, name, parameter));
  }
}

AdamWStep AdamW::begin_step(double lr) {
  const auto k = static_cast<double>(++step_);
  const auto [beta1, beta2] = config_.betas;
  return {.keep = 1 - lr * config_.weight_decay,
          .mix1 = 1 - beta1,
          .beta2 = beta2,
          .mix2 = 1 - beta2,
          .minus_rate = -(lr / (1 - std::pow(beta1, k))),
          .correction2 = std::sqrt(1 - std::pow(beta2, k)),
          .eps = config_.eps};
}

void AdamW::step(double lr, std::span<Ema> averages) {
  const torch::NoGradGuard no_grad;
  const AdamWStep step = begin_step(lr);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor parameter = parameters_[i].second.detach();
    const bool has_gradient = parameters_[i].second.grad().defined();  // else it took no part in the loss; torch leaves such a parameter alone too
    const at::Tensor gradient = has_gradient ? parameters_[i].second.grad().contiguous() : at::Tensor();
    if (has_gradient && parameter.is_cpu()) {
      AT_DISPATCH_FLOATING_TYPES(parameter.scalar_type(), "adamw", [&] {
        std::vector<AveragePass<scalar_t>> passes;
        for (const Ema& average : averages) passes.emplace_back(average.parameters()[i].second, average.rate());
        update(StepFactors<scalar_t>(step, decayed_[i]), parameter.numel(), parameter.data_ptr<scalar_t>(), gradient.const_data_ptr<scalar_t>(),
               exp_avg_[i].data_ptr<scalar_t>(), exp_avg_sq_[i].data_ptr<scalar_t>(), passes);
      });
      continue;
    }
    if (has_gradient) update_on_device(StepFactors<double>(step, decayed_[i]), parameter, gradient, exp_avg_[i], exp_avg_sq_[i]);
    for (Ema& average : averages) average.update_one(i, parameter);
  }
}

NamedTensors AdamW::state() const {
  NamedTensors state;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    state.emplace_back("exp_avg." + parameters_[i].first, exp_avg_[i]);
    state.emplace_back("exp_avg_sq." + parameters_[i].first, exp_avg_sq_[i]);
  }
  state.emplace_back("step", torch::tensor(step_, torch::kInt64));
  return state;
}

void AdamW::load(const NamedTensors& state) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    copy_named(state, "exp_avg." + parameters_[i].first, exp_avg_[i]);
    copy_named(state, "exp_avg_sq." + parameters_[i].first, exp_avg_sq_[i]);
  }
  at::Tensor step = torch::zeros({}, torch::kInt64);
  copy_named(state, "step", step);
  step_ = step.item<std::int64_t>();
}

}  // namespace uvit
