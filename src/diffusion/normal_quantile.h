#pragma once

namespace uvit {

/// z with P(N(0, 1) < z) = u, to about 1e-15 for u in [2^-54, 1 - 2^-54]; u beyond these is taken as the nearer one.
/// Acklam's rational approximation and one step of Halley's method on erfc.
double normal_quantile(double u);

}  // namespace uvit
