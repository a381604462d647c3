#include <torch/torch.h>

#include "samplers/cuda/graphed_network.h"

#include <ATen/autocast_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <memory>

namespace uvit {
namespace {

constexpr int kWarmUps = 2;  // libraries choose algorithms and take their workspaces in a first pass, which a recording may not hold

/// Autocast keeps its casts of the weights for as long as it is on, and a recording lives longer: it makes casts of its own.
class NoAutocastCache {
 public:
  NoAutocastCache() : was_enabled_(at::autocast::is_autocast_cache_enabled()) { at::autocast::set_autocast_cache_enabled(false); }
  ~NoAutocastCache() { at::autocast::set_autocast_cache_enabled(was_enabled_); }
  NoAutocastCache(const NoAutocastCache&) = delete;
  NoAutocastCache& operator=(const NoAutocastCache&) = delete;

 private:
  bool was_enabled_;
};

/// The recorded pass of one batch size, with the tensors that it reads and writes.
struct Recording {
  Recording(const LabelledNetwork& network, const at::Tensor& x_, const at::Tensor& time_, const at::Tensor& labels_)
      : x(x_.clone()), time(time_.clone()), labels(labels_.defined() ? labels_.clone() : at::Tensor()) {
    const c10::DeviceIndex device = x.device().index();
    c10::cuda::getCurrentCUDAStream(device).synchronize();
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device);
    const c10::cuda::CUDAStreamGuard on_stream(stream);  // the default stream cannot be recorded
    const NoAutocastCache no_cache;
    for (int i = 0; i < kWarmUps; ++i) network(x, time, labels);
    stream.synchronize();
    // Of this thread alone: a loader may take pinned memory meanwhile, which a recording of the whole process would forbid.
    graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    out = network(x, time, labels);
    graph.capture_end();
    stream.synchronize();
  }

  at::Tensor x, time, labels, out;
  at::cuda::CUDAGraph graph;
};

class GraphedNetwork {
 public:
  explicit GraphedNetwork(LabelledNetwork network) : network_(std::move(network)) {}

  at::Tensor run(const at::Tensor& x, const at::Tensor& time, const at::Tensor& labels) {
    if (!x.is_cuda()) return network_(x, time, labels);
    std::unique_ptr<Recording>& recording = recordings_[x.size(0)];
    if (!recording) recording = std::make_unique<Recording>(network_, x, time, labels);
    recording->x.copy_(x);
    recording->time.copy_(time);
    if (labels.defined()) recording->labels.copy_(labels);
    recording->graph.replay();
    return recording->out.clone();  // the next replay writes it again
  }

 private:
  LabelledNetwork network_;
  std::map<std::int64_t, std::unique_ptr<Recording>> recordings_;  // by batch size
};

}  // namespace

LabelledNetwork graphed_network(LabelledNetwork network) {
  return [graphed = std::make_shared<GraphedNetwork>(std::move(network))](const at::Tensor& x, const at::Tensor& time, const at::Tensor& labels) {
    return graphed->run(x, time, labels);
  };
}

}  // namespace uvit
