#pragma once
#include <string>

struct CudaBenchOptions {
  int rounds = 20;
  double seconds = 0.05;  ///< shortest time of one measurement
  std::string dtype;      ///< bf16, fp16 or fp32; "": the first two
  std::string only;       ///< only the shape with this many queries
  bool baselines = true;
};

/// bench_attention --device cuda: softmax and cog fused, LibTorch's SDPA by its flash and cuDNN back ends, and plain operations for cog, forward and
/// forward + backward, timed by CUDA events in turn. Throws uvit::Error where there is no GPU.
void run_cuda_bench(const CudaBenchOptions& options);
