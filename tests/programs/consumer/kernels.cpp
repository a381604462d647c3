#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels/attention/cpu/attention_cpu.h"

using namespace uvit::kernels;

/// Cog attention of equal positive scores is the mean of the values.
int main() {
  constexpr std::int64_t length = 33, width = 16;
  const std::vector<float> q(length * width, 0.5F), k(length * width, 0.25F), v(length * width, 2.0F);
  std::vector<float> o(length * width);
  const auto view = [](const std::vector<float>& x) { return View{x.data(), length * width, length * width, width}; };
  AttentionParams params;
  params.kind = Kind::cog;
  params.scale = 0.25F;
  params.B = params.H = 1;
  params.L = params.Lk = length;
  params.D = params.Dv = width;
  params.q = view(q);
  params.k = view(k);
  params.v = view(v);
  params.o = {o.data(), length * width, length * width, width};
  attention_forward(params);
  std::printf("%s: %f\n", attention_isa().c_str(), o[0]);
  return std::abs(o[0] - 2.0F) < 1e-5F ? 0 : 1;
}
