#include <torch/torch.h>

#include "diffusion/wrappers.h"

#include "diffusion/parameterisation.h"

namespace uvit {
using at::Tensor;

Denoiser threshold(Denoiser denoiser, const Schedule& schedule, double quantile) {
  return [denoiser = std::move(denoiser), &schedule, quantile](const Tensor& x, const std::vector<double>& t) {
    const Tensor x0 = denoiser(x, t).x0;
    const Tensor s = at::quantile(x0.abs().flatten(1), quantile, 1).clamp_min(1).view({-1, 1, 1, 1});
    return with_x0(at::minimum(at::maximum(x0, -s), s) / s, x, level_of(t, schedule, x));
  };
}

Denoiser keep_known(Denoiser denoiser, const Schedule& schedule, Tensor known, Tensor mask) {
  return [denoiser = std::move(denoiser), &schedule, known = std::move(known), mask = std::move(mask)](const Tensor& x, const std::vector<double>& t) {
    return with_x0(at::where(mask != 0, known, denoiser(x, t).x0), x, level_of(t, schedule, x));
  };
}

Denoiser blend(Denoiser a, Denoiser b, Tensor share) {
  return [a = std::move(a), b = std::move(b), share = std::move(share)](const Tensor& x, const std::vector<double>& t) -> Prediction {
    const Prediction first = a(x, t), second = b(x, t);
    return {first.x0 + share * (second.x0 - first.x0), first.eps + share * (second.eps - first.eps)};
  };
}

}  // namespace uvit
