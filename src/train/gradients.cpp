#include <torch/torch.h>

#include "train/gradients.h"

#include "diffusion/loss.h"
#include "train/evaluation.h"
#include "train/interrupt.h"

namespace uvit {
namespace {

at::Tensor rows(const at::Tensor& tensor, std::int64_t first, std::int64_t count, bool copy) {
  if (!tensor.defined()) return {};
  const at::Tensor part = tensor.narrow(0, first, count);
  return copy ? part.clone() : part;
}

/// Sum of the micro-batches' losses over all processes, in the order of the global batch.
at::Tensor total_loss(ProcessGroup& processes, const std::vector<at::Tensor>& losses) {
  at::Tensor sum = at::zeros({}, losses.front().options().dtype(at::kDouble));
  for (const at::Tensor& share : processes.all_gather(at::stack(losses)))
    for (const at::Tensor& loss : share.unbind()) sum += loss;
  return sum;
}

}  // namespace

std::int64_t micro_batches_of(const TrainConfig& train, int processes) {
  const std::int64_t share = train.batch_size / processes;
  return train.micro_batch_size > 0 ? (share + train.micro_batch_size - 1) / train.micro_batch_size : 1;
}

BatchLosses add_gradients(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, double loss_scale, GradientSum& sum,
                          const AlignmentEncoder* encoder) {
  const Parameterisation& parameterisation = find_parameterisation(config.diffusion.prediction);
  const WeightingRow& weighting = find_weighting(config.diffusion.weighting);
  const std::int64_t n = batch.x0.size(0);
  const std::int64_t micro = config.train.micro_batch_size > 0 ? config.train.micro_batch_size : n;
  const double images = static_cast<double>(n) * sum.processes().size();
  std::vector<at::Tensor> losses_of_micro, alignments;
  for (std::int64_t first = 0; first < n; first += micro) {
    if (first > 0 && sum.processes().any(interrupt_requested())) throw Interrupted();
    const std::int64_t size = std::min(micro, n - first);
    const bool copy = sum.wants_copies();
    at::Tensor projected;
    const auto network = bind_network(model, config.train.precision, rows(batch.labels, first, size, copy), rows(batch.context, first, size, copy),
                                      encoder ? &projected : nullptr);
    const std::vector<double> t(batch.t.begin() + first, batch.t.begin() + first + size);
    const at::Tensor x0 = rows(batch.x0, first, size, copy);
    const at::Tensor total = diffusion_loss(network, x0, rows(batch.eps, first, size, copy), t, schedule, parameterisation, weighting).sum();
    at::Tensor objective = total;
    if (encoder) {
      const at::Tensor alignment = alignment_loss(projected, encoder->features(x0)).sum();
      objective = total + config.train.align_weight * alignment;
      alignments.push_back(alignment.detach());
    }
    sum.backward(objective * (loss_scale / images), first + size == n);
    losses_of_micro.push_back(total.detach());
  }
  BatchLosses mean{.diffusion = total_loss(sum.processes(), losses_of_micro) / images, .alignment = {}};
  if (encoder) mean.alignment = total_loss(sum.processes(), alignments) / images;
  return mean;
}

}  // namespace uvit
