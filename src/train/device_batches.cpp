#include <torch/torch.h>

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "attention/device.h"
#include "train/device_batches.h"

namespace uvit {

DeviceBatches::DeviceBatches(TrainingBatches& source, at::Device device) : source_(source), device_(device) {
  if (!device.is_cpu()) side_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

TrainingBatch DeviceBatches::next() {
  TrainingBatch batch = source_.next();
  if (!side_) return batch;
  const c10::Stream current = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  c10::Event copied(device_.type());
  {
    const c10::StreamGuard on_side(*side_);
    for (at::Tensor* tensor : {&batch.x0, &batch.eps, &batch.labels, &batch.context}) {
      if (tensor->defined()) *tensor = to_device(*tensor, device_);
    }
    copied.record(*side_);
  }
  copied.block(current);
  for (at::Tensor* tensor : {&batch.x0, &batch.eps, &batch.labels, &batch.context}) {
    if (tensor->defined()) tensor->record_stream(current);  // its memory goes back to the side stream only behind the step
  }
  return batch;
}

}  // namespace uvit
