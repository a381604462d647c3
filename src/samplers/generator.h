#pragma once
#include "diffusion/guidance.h"
#include "diffusion/parameterisation.h"
#include "samplers/fixed_network.h"
#include "samplers/generate.h"
#include "samplers/micro_batch.h"

namespace uvit {

/// Throws Error where the request does not fit the model or the configuration.
void check_request(const UViT& model, const Config& config, const GenerateRequest& request);

/// What the network is told beside image and time; undefined where the model has no such tokens.
struct Condition {
  at::Tensor y;        ///< [B] int64
  at::Tensor context;  ///< [B, tokens, dim]
};

/// What one call of generate draws with: it puts the denoiser of a micro-batch together and runs the solver. Keeps references to its arguments.
class Generator {
 public:
  Generator(UViT& model, const Config& config, const GenerateRequest& request);

  /// The images of one micro-batch, [B, C, H, W] float32 on the CPU; the padding rows are noise.
  at::Tensor run(const MicroBatch& batch, const std::function<void(std::int64_t step, const at::Tensor& x)>& on_step, std::int64_t& nfe);

 private:
  at::Tensor draw(const MicroBatch& batch, const std::vector<std::uint64_t>& seeds, std::uint32_t k) const;
  at::Tensor initial_noise(const MicroBatch& batch) const;
  at::Tensor labels(const MicroBatch& batch, const std::vector<std::int64_t>& of_images) const;
  Condition condition(const MicroBatch& batch, const std::vector<std::int64_t>& labels_of_images) const;
  Condition null_condition(const Condition& like) const;
  at::Tensor shares(const MicroBatch& batch, const std::vector<double>& of_images) const;
  double start_time() const;
  bool reads_pure_noise() const;
  Denoiser network(UViT& model, const Parameterisation& prediction, const Condition& condition) const;
  Denoiser conditional(UViT& model, const Parameterisation& prediction, const MicroBatch& batch) const;
  PairDenoiser pair(const MicroBatch& batch, const Denoiser& conditional) const;
  Denoiser denoiser(const MicroBatch& batch) const;
  Denoiser watched(Denoiser denoiser, const MicroBatch& batch) const;

  UViT& model_;
  const Config& config_;
  const GenerateRequest& request_;
  at::Device device_;
  std::unique_ptr<Schedule> schedule_;
  const Parameterisation& prediction_;
  const SolverRow& solver_;
  LabelledNetwork network_, guide_network_;
};

}  // namespace uvit
