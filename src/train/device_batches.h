#pragma once
#include <c10/core/Event.h>

#include <optional>

#include "train/training_batch.h"

namespace uvit {

/// Training batches on the device that trains. The copy to a GPU runs on a stream of its own, from the pinned memory that the batches are drawn into,
/// so that it goes on beside the step before: the step waits for it on the GPU, and the CPU never.
class DeviceBatches {
 public:
  DeviceBatches(TrainingBatches& source, at::Device device);
  /// The next batch; blocks until it is drawn. Its tensors may be used on the current stream.
  TrainingBatch next();

 private:
  TrainingBatches& source_;
  at::Device device_;
  std::optional<c10::Stream> side_;
};

}  // namespace uvit
