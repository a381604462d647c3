#include <torch/torch.h>

#include "samplers/cuda/graphed_network.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

namespace uvit {
namespace {

constexpr int kWarmUps = 2;  // libraries choose algorithms and take their workspaces in a first pass, which a recording may not hold

class GraphedNetwork {
 public:
  explicit GraphedNetwork(LabelledNetwork network) : network_(std::move(network)) {}

  at::Tensor run(const at::Tensor& x, const at::Tensor& time, const at::Tensor& labels) {
    if (!x.is_cuda()) return network_(x, time, labels);
    if (!graph_) record(x, time, labels);
    x_.copy_(x);
    time_.copy_(time);
    if (labels_.defined()) labels_.copy_(labels);
    graph_->replay();
    return out_.clone();  // the next replay writes out_ again
  }

 private:
  void record(const at::Tensor& x, const at::Tensor& time, const at::Tensor& labels) {
    x_ = x.clone();
    time_ = time.clone();
    if (labels.defined()) labels_ = labels.clone();
    c10::cuda::getCurrentCUDAStream(x.device().index()).synchronize();
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, x.device().index());
    const c10::cuda::CUDAStreamGuard on_stream(stream);  // the default stream cannot be recorded
    for (int i = 0; i < kWarmUps; ++i) network_(x_, time_, labels_);
    stream.synchronize();
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    graph->capture_begin();
    out_ = network_(x_, time_, labels_);
    graph->capture_end();
    stream.synchronize();
    graph_ = std::move(graph);
  }

  LabelledNetwork network_;
  at::Tensor x_, time_, labels_, out_;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};

}  // namespace

LabelledNetwork graphed_network(LabelledNetwork network) {
  return [graphed = std::make_shared<GraphedNetwork>(std::move(network))](const at::Tensor& x, const at::Tensor& time, const at::Tensor& labels) {
    return graphed->run(x, time, labels);
  };
}

}  // namespace uvit
