#include <torch/torch.h>

#include "train/gradients.h"

#include "diffusion/loss.h"
#include "train/evaluation.h"

namespace uvit {
namespace {

at::Tensor rows(const at::Tensor& tensor, std::int64_t first, std::int64_t count) {
  return tensor.defined() ? tensor.narrow(0, first, count) : at::Tensor();
}

}  // namespace

at::Tensor add_gradients(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, double loss_scale) {
  const Parameterisation& parameterisation = find_parameterisation(config.diffusion.prediction);
  const WeightingRow& weighting = find_weighting(config.diffusion.weighting);
  const std::int64_t n = batch.x0.size(0);
  const std::int64_t micro = config.train.micro_batch_size > 0 ? config.train.micro_batch_size : n;
  at::Tensor sum = at::zeros({}, at::TensorOptions(batch.x0.device()).dtype(at::kDouble));
  for (std::int64_t first = 0; first < n; first += micro) {
    const std::int64_t size = std::min(micro, n - first);
    const auto network = bind_network(model, config.train.precision, rows(batch.labels, first, size), rows(batch.context, first, size));
    const std::vector<double> t(batch.t.begin() + first, batch.t.begin() + first + size);
    const at::Tensor losses =
        diffusion_loss(network, rows(batch.x0, first, size), rows(batch.eps, first, size), t, schedule, parameterisation, weighting);
    const at::Tensor total = losses.sum();
    (total * (loss_scale / static_cast<double>(n))).backward();
    sum += total.detach();
  }
  return sum / static_cast<double>(n);
}

}  // namespace uvit
