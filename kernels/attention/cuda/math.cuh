#pragma once
// The arithmetic class of the weight policies on the device. Scores are in units of log 2 (t = scale log2(e) q k^T), so that exp is one instruction;
// the policies hold in any base, as long as shifts and normalisers are in the same one.
#include "kernels/attention/weight.h"
#include "kernels/cuda/arch.cuh"

namespace uvit::kernels::cuda {

namespace arch = ::uvit::cuda::arch;

struct DeviceMath {
  using V = float;
  static UVIT_DEVICE float exp(float t) { return arch::exp2_fast(t); }
  static UVIT_DEVICE float abs(float x) { return fabsf(x); }
  static UVIT_DEVICE float max0(float x) { return fmaxf(x, 0); }
  static UVIT_DEVICE float with_sign_of(float x, float t) { return t == 0 ? 0 : copysignf(x, t); }
  static UVIT_DEVICE float if_positive(float t, float x) { return t > 0 ? x : 0; }
  static UVIT_DEVICE float if_nonzero(float t, float x) { return t != 0 ? x : 0; }
  static UVIT_DEVICE float splat(float x) { return x; }
};

/// float32 tensors: natural units and the accurate exponential; the fast one's 2^-22 would show in softpick's e^s - 1.
struct AccurateMath : DeviceMath {
  static UVIT_DEVICE float exp(float s) { return arch::exp(s); }
};

}  // namespace uvit::kernels::cuda
