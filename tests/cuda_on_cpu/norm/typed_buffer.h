#pragma once
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cuda_on_cpu/emulator.h"
#include "kernels/attention/params.h"
#include "kernels/cuda/arch.cuh"

namespace uvit::test {

using cuda::emulator::Buffer;
using kernels::Dtype;

/// Half a unit in the last place of a dtype, relative.
inline double rounding(Dtype dtype) { return dtype == Dtype::f32 ? 0x1p-24 : dtype == Dtype::f16 ? 0x1p-11 : 0x1p-8; }

/// Values of one of the kernels' dtypes in emulated global memory.
class TypedBuffer {
 public:
  TypedBuffer(const std::string& name, Dtype dtype, std::size_t count)
      : dtype_(dtype), count_(count), wide_(name, dtype == Dtype::f32 ? count : 0), narrow_(name, dtype == Dtype::f32 ? 0 : count) {}
  TypedBuffer(const std::string& name, Dtype dtype, const std::vector<double>& values) : TypedBuffer(name, dtype, values.size()) {
    for (std::size_t i = 0; i < count_; ++i) {
      const auto x = static_cast<float>(values[i]);
      if (dtype == Dtype::f32) wide_[i] = x;
      if (dtype == Dtype::f16) narrow_[i] = cuda::arch::from_float<cuda::arch::f16>(x).bits;
      if (dtype == Dtype::bf16) narrow_[i] = cuda::arch::from_float<cuda::arch::bf16>(x).bits;
    }
  }

  void* data() const { return dtype_ == Dtype::f32 ? static_cast<void*>(wide_.data()) : narrow_.data(); }
  std::vector<double> values() const {
    std::vector<double> result(count_);
    for (std::size_t i = 0; i < count_; ++i) {
      if (dtype_ == Dtype::f32) result[i] = wide_[i];
      if (dtype_ == Dtype::f16) result[i] = cuda::arch::to_float(cuda::arch::f16{narrow_[i]});
      if (dtype_ == Dtype::bf16) result[i] = cuda::arch::to_float(cuda::arch::bf16{narrow_[i]});
    }
    return result;
  }

 private:
  Dtype dtype_;
  std::size_t count_;
  Buffer<float> wide_;
  Buffer<std::uint16_t> narrow_;
};

inline std::vector<double> normal_values(std::size_t count, unsigned seed, double scale = 1, double shift = 0) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(shift, scale);
  std::vector<double> values(count);
  for (double& x : values) x = normal(engine);
  return values;
}

inline std::vector<double> as_doubles(const Buffer<float>& buffer) {
  std::vector<double> values(buffer.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = buffer[i];
  return values;
}

}  // namespace uvit::test
