// The table of one instruction set. The including file defines UVIT_ISA, UVIT_LANES, UVIT_TABLE and, where there are such
// instructions, UVIT_BF16_DOT and UVIT_TILES.
#include "kernels/attention/cpu/isa/backward_two.h"

namespace uvit::kernels {
namespace UVIT_ISA {

/// Calls f with the way of multiplying that the dtype has here.
template <class F>
static void with_cells(const AttentionParams& p, F f) {
  if (p.dtype == Dtype::f32) return f(FloatCells<Dtype::f32>{});
#ifdef UVIT_TILES
  f(TileCells{});
#elif defined(UVIT_BF16_DOT)
  f(PairCells{});
#else
  f(FloatCells<Dtype::bf16>{});
#endif
}

template <class C>
static void forward_of_kind(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch) {
  switch (p.kind) {
    case Kind::softmax:
      return forward_piece<C, SoftmaxWeight>(p, plan, item, scratch);
    case Kind::cog:
      return forward_piece<C, CogWeight>(p, plan, item, scratch);
    case Kind::centered:
      return forward_piece<C, CenteredWeight>(p, plan, item, scratch);
    case Kind::softpick:
      return forward_piece<C, SoftpickWeight>(p, plan, item, scratch);
    case Kind::softmax1:
      return forward_piece<C, Softmax1Weight>(p, plan, item, scratch);
    case Kind::sigmoid:
      return forward_piece<C, SigmoidWeight>(p, plan, item, scratch);
    case Kind::sda:
    case Kind::sda_weighted:
      return forward_two_piece<C, Two::signed_scores>(p, plan, item, scratch);
    case Kind::dipole:
      return forward_two_piece<C, Two::two_values>(p, plan, item, scratch);
    case Kind::diff:
      return forward_two_piece<C, Two::two_scores>(p, plan, item, scratch);
  }
}

static void forward(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch) {
  with_cells(p, [&](auto cells) {
    [[maybe_unused]] const typename decltype(cells)::Session session{};
    forward_of_kind<decltype(cells)>(p, plan, item, scratch);
  });
}

static std::size_t forward_scratch(const AttentionParams& p, const Plan& plan) {
  Arena arena{nullptr};
  with_cells(p, [&](auto cells) {
    using C = decltype(cells);
    if (p.kind == Kind::dipole)
      ForwardTwoBuffers<C, Two::two_values>(p, plan, arena);
    else if (p.kind == Kind::diff)
      ForwardTwoBuffers<C, Two::two_scores>(p, plan, arena);
    else if (two_normalisers(p.kind))
      ForwardTwoBuffers<C, Two::signed_scores>(p, plan, arena);
    else
      ForwardBuffers<C>(p, plan, arena);
  });
  return arena.used;
}

template <class C>
static void backward_of_kind(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch, float* sums, double* weight_sums) {
  switch (p.kind) {
    case Kind::softmax:
      return backward_piece<C, SoftmaxWeight>(p, plan, item, scratch, sums);
    case Kind::cog:
      return backward_piece<C, CogWeight>(p, plan, item, scratch, sums);
    case Kind::centered:
      return backward_piece<C, CenteredWeight>(p, plan, item, scratch, sums);
    case Kind::softpick:
      return backward_piece<C, SoftpickWeight>(p, plan, item, scratch, sums);
    case Kind::softmax1:
      return backward_piece<C, Softmax1Weight>(p, plan, item, scratch, sums);
    case Kind::sigmoid:
      return backward_piece<C, SigmoidWeight>(p, plan, item, scratch, sums);
    case Kind::sda:
    case Kind::sda_weighted:
      return backward_two_piece<C, Two::signed_scores>(p, plan, item, scratch, sums, weight_sums);
    case Kind::dipole:
      return backward_two_piece<C, Two::two_values>(p, plan, item, scratch, sums, weight_sums);
    case Kind::diff:
      return backward_two_piece<C, Two::two_scores>(p, plan, item, scratch, sums, weight_sums);
  }
}

static void backward(const AttentionParams& p, const Plan& plan, std::int64_t item, float* scratch, float* sums, double* weight_sums) {
  with_cells(p, [&](auto cells) {
    [[maybe_unused]] const typename decltype(cells)::Session session{};
    backward_of_kind<decltype(cells)>(p, plan, item, scratch, sums, weight_sums);
  });
}

static std::size_t backward_scratch(const AttentionParams& p, const Plan& plan) {
  Arena arena{nullptr};
  with_cells(p, [&](auto cells) {
    using C = decltype(cells);
    if (p.kind == Kind::dipole)
      BackwardTwoBuffers<C, Two::two_values>(p, plan, arena);
    else if (p.kind == Kind::diff)
      BackwardTwoBuffers<C, Two::two_scores>(p, plan, arena);
    else if (two_normalisers(p.kind))
      BackwardTwoBuffers<C, Two::signed_scores>(p, plan, arena);
    else
      BackwardBuffers<C>(p, plan, arena);
  });
  return arena.used;
}

static std::size_t key_sums(const AttentionParams& p, const Plan&) { return KeySums(p, nullptr).floats; }

static void finish(const AttentionParams& p, const Plan& plan, std::int64_t item, float* head_sums) {
  p.dtype == Dtype::f32 ? finish_piece<Dtype::f32>(p, plan, item, head_sums) : finish_piece<Dtype::bf16>(p, plan, item, head_sums);
}

}  // namespace UVIT_ISA

const KernelTable UVIT_TABLE = {UVIT_ISA_NAME,      UVIT_ISA::forward_plan,  UVIT_ISA::forward_scratch,
                                UVIT_ISA::forward,  UVIT_ISA::backward_plan, UVIT_ISA::backward_scratch,
                                UVIT_ISA::key_sums, UVIT_ISA::backward,      UVIT_ISA::finish};

}  // namespace uvit::kernels
