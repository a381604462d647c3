#include <torch/torch.h>

#include "train/cuda/cuda_update.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "attention/device.h"
#include "kernels/optim/optim_cuda.h"

namespace uvit {
namespace {

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

template <class T>
at::Tensor bytes_on(const std::vector<T>& values, at::Device device) {
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  at::Tensor host = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  std::copy_n(reinterpret_cast<const std::uint8_t*>(values.data()), bytes, host.data_ptr<std::uint8_t>());
  return to_device(host, device);
}

class CudaUpdate : public FusedUpdate {
 public:
  CudaUpdate(AdamW& optimizer, std::vector<Ema>& emas) : optimizer_(optimizer), emas_(emas), device_(optimizer.parameters().front().second.device()) {
    std::vector<kernels::OptimChunk> chunks;
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
      const std::int64_t size = optimizer.parameters()[i].second.numel();
      for (std::int64_t first = 0; first < size; first += kernels::kOptimChunk) chunks.push_back({static_cast<std::int32_t>(i), 0, first});
    }
    num_chunks_ = static_cast<std::int32_t>(chunks.size());
    const c10::cuda::CUDAGuard device(device_);
    chunks_ = bytes_on(chunks, device_);
    const at::TensorOptions on_device = at::TensorOptions(device_).dtype(at::kDouble);
    partial_ = at::empty({num_chunks_}, on_device);
    facts_ = at::empty({sizeof(kernels::GradientFacts) / sizeof(double)}, on_device);
  }

  at::Tensor measure(double unscale, double max_norm) override {
    const c10::cuda::CUDAGuard device(device_);
    read_table();
    const at::Tensor tensors = bytes_on(table_, device_);
    kernels::gradient_facts_cuda(on_device(tensors), unscale, max_norm, partial_.data_ptr<double>(), facts(), current_stream());
    return facts_[0];
  }

  void apply(double lr) override {
    const c10::cuda::CUDAGuard device(device_);
    const AdamWStep step = optimizer_.begin_step(lr);
    for (std::size_t i = 0; i < table_.size(); ++i) table_[i].keep = optimizer_.decayed()[i] ? static_cast<float>(step.keep) : 1.0F;
    const at::Tensor tensors = bytes_on(table_, device_);
    kernels::AdamWFactors f;
    f.mix1 = static_cast<float>(step.mix1);
    f.beta2 = static_cast<float>(step.beta2);
    f.mix2 = static_cast<float>(step.mix2);
    f.minus_rate = static_cast<float>(step.minus_rate);
    f.correction2 = static_cast<float>(step.correction2);
    f.eps = static_cast<float>(step.eps);
    f.num_averages = static_cast<int>(emas_.size());
    for (std::size_t k = 0; k < emas_.size(); ++k) {
      f.average_keep[k] = static_cast<float>(emas_[k].rate());
      f.average_mix[k] = static_cast<float>(1 - emas_[k].rate());
    }
    kernels::adamw_ema_cuda(on_device(tensors), f, facts(), current_stream());
  }

 private:
  kernels::GradientFacts* facts() { return reinterpret_cast<kernels::GradientFacts*>(facts_.data_ptr<double>()); }

  kernels::OptimTable on_device(const at::Tensor& tensors) const {
    return {reinterpret_cast<const kernels::OptimTensor*>(tensors.data_ptr<std::uint8_t>()),
            reinterpret_cast<const kernels::OptimChunk*>(chunks_.data_ptr<std::uint8_t>()), num_chunks_};
  }

  /// Anew in every step: backward gives gradients new addresses.
  void read_table() {
    held_.clear();
    table_.assign(optimizer_.parameters().size(), {});
    for (std::size_t i = 0; i < table_.size(); ++i) {
      const at::Tensor& parameter = optimizer_.parameters()[i].second;
      kernels::OptimTensor& t = table_[i];
      t.parameter = parameter.data_ptr<float>();
      if (parameter.grad().defined()) {
        held_.push_back(parameter.grad().contiguous());
        t.gradient = held_.back().const_data_ptr<float>();
      }
      t.exp_avg = optimizer_.exp_avg()[i].data_ptr<float>();
      t.exp_avg_sq = optimizer_.exp_avg_sq()[i].data_ptr<float>();
      for (std::size_t k = 0; k < emas_.size(); ++k) t.averages[k] = emas_[k].parameters()[i].second.data_ptr<float>();
      t.size = parameter.numel();
    }
  }

  AdamW& optimizer_;
  std::vector<Ema>& emas_;
  at::Device device_;
  at::Tensor chunks_, partial_, facts_;
  std::vector<kernels::OptimTensor> table_;
  std::vector<at::Tensor> held_;  // the gradients in the table, where they are contiguous copies too
  std::int32_t num_chunks_ = 0;
};

}  // namespace

std::unique_ptr<FusedUpdate> make_cuda_update(AdamW& optimizer, std::vector<Ema>& emas) {
  const NamedTensors& parameters = optimizer.parameters();
  const auto fits = [](const auto& named) { return named.second.is_cuda() && named.second.scalar_type() == at::kFloat; };
  if (parameters.empty() || emas.size() > kernels::kMostAverages || !std::all_of(parameters.begin(), parameters.end(), fits)) return nullptr;
  return std::make_unique<CudaUpdate>(optimizer, emas);
}

}  // namespace uvit
