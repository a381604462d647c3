#pragma once
// Weight policies of the kinds with one normaliser: w = f(s) / Z, Z = c + sum g(s). Derivations: kernels/README.md.
//
// A policy is the whole difference between two kinds. It is written over an arithmetic class O (vectors of one instruction set, or a device's
// floats) with O::V, exp, abs, max0, with_sign_of (0 where the sign's argument is 0), if_positive, if_nonzero and splat. Every
// function is a template on O, so no two instruction sets share an instantiation.
#ifdef __CUDACC__
#define UVIT_WEIGHT_FN __host__ __device__ __forceinline__
#else
#define UVIT_WEIGHT_FN inline __attribute__((always_inline))
#endif

namespace uvit::kernels {

struct SoftmaxWeight {
  static constexpr bool kHasShift = true;      ///< the row's maximum is subtracted before exp
  static constexpr bool kZeroInShift = false;  ///< and 0 takes part in that maximum
  static constexpr bool kCentered = false;     ///< the output loses the mean of the visible values
  static constexpr bool kTakesSum = false;     ///< backward gets 1/Z' and e^-hi as `lo` and `unit`, Z' = Z e^-hi
  /// What the row maximum is taken of.
  template <class O>
  static UVIT_WEIGHT_FN typename O::V key(typename O::V t) {
    return t;
  }
  /// w <- f(t) e^-shift; returns g(t) e^-shift. unit = e^-shift; kinds without a shift get the constant of the row as `shift`.
  template <class O>
  static UVIT_WEIGHT_FN typename O::V forward(typename O::V t, typename O::V shift, typename O::V, typename O::V& w) {
    return w = O::exp(t - shift);
  }
  /// c of Z, times e^-shift.
  static UVIT_WEIGHT_FN float constant(float) { return 0; }
  /// w, and ds = (f'(t) dp - g'(t) delta) / Z, with log Z = hi + lo; unit: 1/n of centered.
  template <class O>
  static UVIT_WEIGHT_FN void backward(typename O::V t, typename O::V hi, typename O::V lo, typename O::V, typename O::V delta, typename O::V dp,
                                      typename O::V& w, typename O::V& ds) {
    w = O::exp((t - hi) - lo);
    ds = w * (dp - delta);
  }
};

struct CenteredWeight : SoftmaxWeight {
  static constexpr bool kCentered = true;
  template <class O>
  static UVIT_WEIGHT_FN void backward(typename O::V t, typename O::V hi, typename O::V lo, typename O::V unit, typename O::V delta, typename O::V dp,
                                      typename O::V& w, typename O::V& ds) {
    const typename O::V p = O::exp((t - hi) - lo);
    w = p - unit;
    ds = p * (dp - delta);
  }
};

struct CogWeight : SoftmaxWeight {
  template <class O>
  static UVIT_WEIGHT_FN typename O::V key(typename O::V t) {
    return O::abs(t);
  }
  template <class O>
  static UVIT_WEIGHT_FN typename O::V forward(typename O::V t, typename O::V shift, typename O::V, typename O::V& w) {
    const typename O::V e = O::exp(O::abs(t) - shift);
    w = O::with_sign_of(e, t);
    return e;
  }
  template <class O>
  static UVIT_WEIGHT_FN void backward(typename O::V t, typename O::V hi, typename O::V lo, typename O::V, typename O::V delta, typename O::V dp,
                                      typename O::V& w, typename O::V& ds) {
    const typename O::V p = O::exp((O::abs(t) - hi) - lo);
    w = O::with_sign_of(p, t);
    ds = O::if_nonzero(t, p * dp) - w * delta;
  }
};

struct Softmax1Weight : SoftmaxWeight {
  static constexpr bool kZeroInShift = true;
  static UVIT_WEIGHT_FN float constant(float unit) { return unit; }
};

struct SoftpickWeight : SoftmaxWeight {
  static constexpr bool kZeroInShift = true;
  static constexpr bool kTakesSum = true;  // e^(s - log Z) - e^-log Z would cancel where all scores are near 0 and Z is small
  template <class O>
  static UVIT_WEIGHT_FN typename O::V forward(typename O::V t, typename O::V shift, typename O::V unit, typename O::V& w) {
    const typename O::V e = O::exp(t - shift) - unit;
    w = O::max0(e);
    return O::abs(e);
  }
  static UVIT_WEIGHT_FN float constant(float unit) { return 1e-8f * unit; }
  template <class O>
  static UVIT_WEIGHT_FN void backward(typename O::V t, typename O::V hi, typename O::V lo, typename O::V unit, typename O::V delta, typename O::V dp,
                                      typename O::V& w, typename O::V& ds) {
    const typename O::V e = O::exp(t - hi), p = e * lo;
    w = O::max0(e - unit) * lo;
    ds = O::if_positive(t, p * dp) - O::with_sign_of(p, t) * delta;
  }
};

struct SigmoidWeight : SoftmaxWeight {
  static constexpr bool kHasShift = false;
  template <class O>
  static UVIT_WEIGHT_FN typename O::V forward(typename O::V t, typename O::V shift, typename O::V, typename O::V& w) {
    w = O::splat(1) / (O::splat(1) + O::exp(shift - t));
    return O::splat(0);
  }
  static UVIT_WEIGHT_FN float constant(float) { return 1; }
  template <class O>
  static UVIT_WEIGHT_FN void backward(typename O::V t, typename O::V hi, typename O::V, typename O::V, typename O::V, typename O::V dp,
                                      typename O::V& w, typename O::V& ds) {
    w = O::splat(1) / (O::splat(1) + O::exp(hi - t));
    ds = w * (O::splat(1) - w) * dp;
  }
};

}  // namespace uvit::kernels
