// The host side: checks, which kernels a kind takes, and where things lie in the workspace.
//   one normaliser   forward: one launch. Backward: facts of the rows (normaliser, delta), then one launch for dq, dk and dv
//   centered         softmax; the mean of the visible values, from running sums, is taken from o, and the like from dv
//   sda, sda_weighted, dipole   forward: one launch with two normalisers. Backward of sda: one launch; of dipole: two of softmax, like diff
//   diff             two launches of softmax, the second score first; what both add to goes through floats in the workspace
#include "kernels/attention/cuda/attention_cuda.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/attention/cuda/kernels.h"

namespace uvit::kernels {
namespace cuda {
namespace {

using ::uvit::cuda::arch::bf16;
using ::uvit::cuda::arch::f16;

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("attention on CUDA: " + message);
}

/// Hands out pieces of the workspace; without memory it only counts.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  template <class X>
  X* take(std::int64_t count) {
    unsigned char* at = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(X) + 255) / 256 * 256;
    return count == 0 ? nullptr : reinterpret_cast<X*>(at);
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* memory_;
  std::size_t used_ = 0;
};

std::int64_t part_floats(const AttentionParams& p) { return p.B * p.H * p.L * p.Dv; }

struct ForwardWorkspace {
  float* means = nullptr;  // centered: [heads, Lk or 1, Dv]
  float* part = nullptr;   // diff: softmax(s2) v
  std::size_t bytes;
  ForwardWorkspace(const AttentionParams& p, void* memory) {
    Workspace w(memory);
    if (p.kind == Kind::centered && p.Lk > 0) means = w.take<float>(p.B * p.H * (p.causal ? p.Lk : 1) * p.Dv);
    if (p.kind == Kind::diff && p.parts == nullptr) part = w.take<float>(part_floats(p));
    bytes = w.used();
  }
};

struct BackwardWorkspace {
  RowFacts* facts[2] = {};
  float* part[2] = {};         // the halves of the output, where params.parts is null
  float* means = nullptr;      // centered, as in forward
  float* dout_sums = nullptr;  // centered: [heads, Lk or 1, Dv], what dv loses
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;  // the second stream's share, where both add to one gradient
  std::size_t bytes;
  BackwardWorkspace(const AttentionParams& p, void* memory) {
    Workspace w(memory);
    const std::int64_t heads = p.B * p.H;
    for (int half = 0; half < stats_per_row(p.kind) / 2; ++half) {
      facts[half] = w.take<RowFacts>(heads * p.L);
      if (has_two_normalisers(p.kind) && p.parts == nullptr) part[half] = w.take<float>(part_floats(p));
    }
    if (p.kind == Kind::centered && p.Lk > 0) {
      means = w.take<float>(heads * (p.causal ? p.Lk : 1) * p.Dv);
      dout_sums = w.take<float>(heads * (p.causal ? p.Lk : 1) * p.Dv);
    }
    if (p.kind == Kind::diff) dv = w.take<float>(heads * p.Lk * p.Dv);
    if (p.kind == Kind::dipole) dq = w.take<float>(heads * p.L * p.D), dk = w.take<float>(heads * p.Lk * p.D);
    bytes = w.used();
  }
};

Variant variant_of(Kind kind) {
  switch (kind) {
    case Kind::cog: return Variant::cog;
    case Kind::softpick:
    case Kind::softmax1:
    case Kind::sigmoid: return Variant::other;
    case Kind::sda:
    case Kind::sda_weighted:
    case Kind::dipole: return Variant::dual;
    default: return Variant::softmax;
  }
}

template <class T, int kWidth>
void forward_of_width(Variant variant, const ForwardArguments& a, Stream stream) {
  switch (variant) {
    case Variant::softmax: return launch_forward<T, kWidth, Variant::softmax>(a, stream);
    case Variant::cog: return launch_forward<T, kWidth, Variant::cog>(a, stream);
    case Variant::other: return launch_forward<T, kWidth, Variant::other>(a, stream);
    case Variant::dual: return launch_forward<T, kWidth, Variant::dual>(a, stream);
  }
}
template <class T, int kWidth>
void backward_of_width(Variant variant, const BackwardArguments& a, Stream stream) {
  switch (variant) {
    case Variant::softmax: return launch_backward<T, kWidth, Variant::softmax>(a, stream);
    case Variant::cog: return launch_backward<T, kWidth, Variant::cog>(a, stream);
    case Variant::other: return launch_backward<T, kWidth, Variant::other>(a, stream);
    case Variant::dual: return launch_backward<T, kWidth, Variant::dual>(a, stream);
  }
}

/// The launches of one call; T is the tensors' type.
template <class T>
class Call {
 public:
  Call(const AttentionParams& params, Stream stream) : p(params), stream_(stream) {
    problem_.heads = static_cast<std::int32_t>(p.B * p.H), problem_.H = static_cast<std::int32_t>(p.H);
    problem_.L = static_cast<std::int32_t>(p.L), problem_.Lk = static_cast<std::int32_t>(p.Lk);
    problem_.D = static_cast<std::int32_t>(p.D), problem_.Dv = static_cast<std::int32_t>(p.Dv);
    problem_.rows = p.B * p.H * p.L, problem_.causal = p.causal, problem_.kind = p.kind;
  }

  void forward(void* memory) const {
    const ForwardWorkspace w(p, memory);
    ForwardArguments a = first_stream();
    a.o = p.o, a.stats = p.stats;
    if (p.parts != nullptr) a.part[0] = p.parts;
    if (p.kind == Kind::centered) a.addend = mean_of_values(w.means, -1);
    if (variant_of(p.kind) == Variant::dual) {
      if (p.parts != nullptr) a.part[1] = p.parts + part_floats(p);
      if (has_second_value(p.kind)) a.v2 = p.v2;
      if (has_w_plus(p.kind)) a.weight[0] = p.w_plus, a.weight[1] = p.w_minus;
      a.sign = p.kind == Kind::dipole ? 1 : -1;
    }
    if (p.kind == Kind::diff) {
      ForwardArguments second = second_stream();
      second.part[0] = p.parts != nullptr ? p.parts + part_floats(p) : w.part;
      if (p.stats != nullptr) second.stats = p.stats + 2 * problem_.rows;
      run(Variant::softmax, second);
      a.addend = {second.part[0], p.w_minus, -1, p.L * p.Dv, problem_.Dv, 0};
    }
    run(variant_of(p.kind), a);
  }

  void backward(void* memory) const {
    const BackwardWorkspace w(p, memory);
    prepare_rows(w);
    BackwardArguments a;
    a.problem = problem(p.scale);
    a.q = p.q, a.k = p.k, a.v = p.v, a.dout = p.dout;
    a.facts[0] = w.facts[0], a.facts[1] = w.facts[1];
    a.dq.view = p.dq, a.dk.view = p.dk, a.dv.view = p.dv;
    if (has_w_plus(p.kind)) a.weight[0] = p.w_plus;
    if (p.kind == Kind::diff || p.kind == Kind::dipole) {
      second_backward(a, w);
    } else if (variant_of(p.kind) == Variant::dual) {
      a.sign = -1, a.weight[1] = has_w_minus(p.kind) ? p.w_minus : nullptr;
    }
    if (p.kind == Kind::centered && p.L > 0 && p.Lk > 0) {
      launch_prefix<T>(prefix(p.dout, w.dout_sums, false), problem_.heads, stream_);
      a.dv.addend = {w.dout_sums, nullptr, -1, (p.causal ? p.Lk : 1) * p.Dv, p.causal ? problem_.Dv : 0, 0};
    }
    // The derivative of softmax1 is that of softmax: its constant is in the normaliser.
    const bool one_stream = p.kind != Kind::dipole && p.kind != Kind::softmax1;
    run(one_stream ? variant_of(p.kind) : Variant::softmax, a);
    if (has_w_minus(p.kind)) sum_weight_gradients(w);
  }

 private:
  const AttentionParams& p;
  Stream stream_;
  Problem problem_;

  Problem problem(float scale) const {
    Problem out = problem_;
    out.scale = scale;
    out.scale_log2 = static_cast<float>(scale * 1.4426950408889634);
    return out;
  }
  Problem forward_problem(float scale) const {
    Problem out = problem(scale);
    out.scale_log2 = scale == 0 ? 1 : std::abs(out.scale_log2);
    return out;
  }
  /// softmax(s) v, or the one launch there is.
  ForwardArguments first_stream() const {
    ForwardArguments a;
    a.problem = forward_problem(p.scale);
    a.q = p.q, a.k = p.k, a.v = p.v;
    return a;
  }
  /// softmax(s2) v, or softmax(-s) v2.
  ForwardArguments second_stream() const {
    ForwardArguments a = first_stream();
    if (has_second_scores(p.kind))
      a.q = p.q2, a.k = p.k2;
    else
      a.problem = forward_problem(-p.scale);
    if (has_second_value(p.kind)) a.v = p.v2;
    return a;
  }
  PrefixArguments prefix(const View& x, float* out, bool means) const {
    return {x, out, problem_.H, problem_.L, problem_.Lk, problem_.Dv, p.causal, means};
  }
  /// factor times the mean of the values that a row sees.
  Addend mean_of_values(float* means, float factor) const {
    if (means == nullptr) return {};
    launch_prefix<T>(prefix(p.v, means, true), problem_.heads, stream_);
    if (!p.causal) return {means, nullptr, factor, p.Dv, 0, 0};
    return {means, nullptr, factor, p.Lk * p.Dv, problem_.Dv, problem_.Lk - problem_.L};
  }
  void prepare_rows(const BackwardWorkspace& w) const {
    if (problem_.rows == 0) return;
    const bool two = has_two_normalisers(p.kind);
    for (int half = 0; half < (two ? 2 : 1); ++half) {
      RowsArguments r;
      r.problem = problem(p.scale);
      r.o = {p.o.data, p.o.stride_b, p.o.stride_h, p.o.stride_l};
      r.dout = p.dout, r.stats = p.stats + 2 * half * problem_.rows, r.facts = w.facts[half];
      if (two && p.parts != nullptr) r.part = p.parts + half * part_floats(p);
      if (two && p.parts == nullptr) {
        ForwardArguments a = half == 0 ? first_stream() : second_stream();
        r.part = a.part[0] = w.part[half];
        run(Variant::softmax, a);
      }
      if (p.kind == Kind::centered) r.addend = mean_of_values(w.means, 1);
      launch_prepare_rows<T>(r, stream_);
    }
  }
  /// The second stream of diff and dipole; what the first adds to goes to the workspace.
  void second_backward(BackwardArguments& first, const BackwardWorkspace& w) const {
    const ForwardArguments inputs = second_stream();
    BackwardArguments a = first;
    a.problem = problem(inputs.problem.scale), a.q = inputs.q, a.k = inputs.k, a.v = inputs.v;
    a.facts[0] = w.facts[1], a.weight[0] = p.w_minus;
    if (p.kind == Kind::diff) {
      a.sign = -1, a.dq.view = p.dq2, a.dk.view = p.dk2, a.dv.part = w.dv;
      first.dv.addend = {w.dv, nullptr, 1, p.Lk * p.Dv, problem_.Dv, 0};
    } else {
      a.dv.view = p.dv2, a.dq.part = w.dq, a.dk.part = w.dk;
      first.dq.addend = {w.dq, nullptr, 1, p.L * p.D, problem_.D, 0};
      first.dk.addend = {w.dk, nullptr, 1, p.Lk * p.D, problem_.D, 0};
    }
    run(Variant::softmax, a);
  }
  void sum_weight_gradients(const BackwardWorkspace& w) const {
    WeightSumArguments s;
    s.B = static_cast<std::int32_t>(p.B), s.H = problem_.H, s.L = problem_.L;
    s.facts[0] = w.facts[0], s.facts[1] = w.facts[1];
    s.out[0] = has_w_plus(p.kind) ? p.dw_plus : nullptr, s.out[1] = p.dw_minus;
    s.sign[1] = p.kind == Kind::dipole ? 1 : -1;
    launch_weight_sums(s, stream_);
  }
  void run(Variant variant, const ForwardArguments& a) const {
    if constexpr (sizeof(T) == 4)
      launch_forward_f32(a, variant, stream_);
    else if (p.D <= 64 && p.Dv <= 64)
      forward_of_width<T, 64>(variant, a, stream_);
    else
      forward_of_width<T, 128>(variant, a, stream_);
  }
  void run(Variant variant, const BackwardArguments& a) const {
    if constexpr (sizeof(T) == 4)
      launch_backward_f32(a, variant, stream_);
    else if (p.D <= 64 && p.Dv <= 64)
      backward_of_width<T, 64>(variant, a, stream_);
    else
      backward_of_width<T, 128>(variant, a, stream_);
  }
};

void check_view(const AttentionParams& p, const View& view, std::int64_t rows, const char* name) {
  if (rows == 0) return;
  require(view.data != nullptr, std::string(name) + " is null");
  require(std::abs(view.stride_l) < (std::int64_t{1} << 26), std::string("rows of ") + name + " must be less than 2^26 elements apart");
  require(attention_cuda_takes(view, p.dtype), std::string("rows of ") + name + " must begin at multiples of 16 bytes; copy the tensor first");
}
void check_view(const AttentionParams& p, const MutableView& v, std::int64_t rows, const char* name) {
  check_view(p, View{v.data, v.stride_b, v.stride_h, v.stride_l}, rows, name);
}

void check_sizes(const AttentionParams& p) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  auto fits = [](std::int64_t d) { return d >= 8 && d <= 128 && d % 8 == 0; };
  require(p.B >= 0 && p.H >= 0 && p.L >= 0 && p.Lk >= 0, "B, H, L and Lk must not be negative");
  require(fits(p.D) && fits(p.Dv), "D and Dv must be multiples of 8 from 8 to 128");
  require(p.L < kMost && p.Lk < kMost && p.B * p.H < kMost && p.B * p.H * (p.L + p.Lk + 256) / 16 < kMost, "B * H * (L + Lk) must be below 2^34");
}

void check_inputs(const AttentionParams& p) {
  check_view(p, p.q, p.L, "q");
  check_view(p, p.k, p.Lk, "k");
  check_view(p, p.v, p.Lk, "v");
  check_view(p, p.o, p.L, "o");
  if (has_second_value(p.kind)) check_view(p, p.v2, p.Lk, "v2");
  if (has_second_scores(p.kind)) check_view(p, p.q2, p.L, "q2"), check_view(p, p.k2, p.Lk, "k2");
  require(!has_w_plus(p.kind) || p.w_plus != nullptr, "this kind needs w_plus");
  require(!has_w_minus(p.kind) || p.w_minus != nullptr, "this kind needs w_minus");
}

void check_gradients(const AttentionParams& p) {
  require(p.L == 0 || p.stats != nullptr, "stats is null");
  check_view(p, p.dout, p.L, "dout");
  check_view(p, p.dq, p.L, "dq");
  check_view(p, p.dk, p.Lk, "dk");
  check_view(p, p.dv, p.Lk, "dv");
  if (has_second_value(p.kind)) check_view(p, p.dv2, p.Lk, "dv2");
  if (has_second_scores(p.kind)) check_view(p, p.dq2, p.L, "dq2"), check_view(p, p.dk2, p.Lk, "dk2");
  require(!has_w_plus(p.kind) || p.dw_plus != nullptr, "this kind needs dw_plus");
  require(!has_w_minus(p.kind) || p.dw_minus != nullptr, "this kind needs dw_minus");
}

/// f(Call<T>) for the params' dtype.
template <class F>
void with_call(const AttentionParams& params, void* stream, F f) {
  const Stream s = static_cast<Stream>(stream);
  if (params.dtype == Dtype::f32) f(Call<float>(params, s));
  if (params.dtype == Dtype::bf16) f(Call<bf16>(params, s));
  if (params.dtype == Dtype::f16) f(Call<f16>(params, s));
}

}  // namespace
}  // namespace cuda

void attention_forward_cuda(const AttentionParams& params, void* workspace, void* stream) {
  cuda::check_sizes(params);
  if (params.B * params.H * params.L == 0) return;
  cuda::check_inputs(params);
  cuda::require(workspace != nullptr || attention_forward_cuda_workspace(params) == 0, "workspace is null");
  cuda::with_call(params, stream, [&](const auto& call) { call.forward(workspace); });
}

void attention_backward_cuda(const AttentionParams& params, void* workspace, void* stream) {
  cuda::check_sizes(params);
  if (params.B * params.H == 0) return;
  cuda::check_inputs(params);
  cuda::check_gradients(params);
  cuda::require(workspace != nullptr || attention_backward_cuda_workspace(params) == 0, "workspace is null");
  cuda::with_call(params, stream, [&](const auto& call) { call.backward(workspace); });
}

std::size_t attention_forward_cuda_workspace(const AttentionParams& params) { return cuda::ForwardWorkspace(params, nullptr).bytes; }
std::size_t attention_backward_cuda_workspace(const AttentionParams& params) { return cuda::BackwardWorkspace(params, nullptr).bytes; }

std::int64_t attention_parts_floats_cuda(const AttentionParams& params) {
  return has_two_normalisers(params.kind) ? 2 * cuda::part_floats(params) : 0;
}

bool attention_cuda_takes(const View& view, Dtype dtype) {
  if (dtype == Dtype::f32) return true;
  return reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0 && view.stride_b % 8 == 0 && view.stride_h % 8 == 0 && view.stride_l % 8 == 0;
}
bool attention_cuda_takes(const MutableView& view, Dtype dtype) {
  return attention_cuda_takes(View{view.data, view.stride_b, view.stride_h, view.stride_l}, dtype);
}

}  // namespace uvit::kernels
