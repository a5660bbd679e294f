#ifndef MUSTER_KERNELS_PORTABLE_EXP_H_
#define MUSTER_KERNELS_PORTABLE_EXP_H_

#include <cmath>

namespace muster {

// exp(x) within 3e-16 of it, and the same bits on every machine that runs this program: basic
// arithmetic only, where a C library may choose by the processor. What several ranks decide from
// is computed with it. NaN for NaN.
inline double PortableExp(double x) {
  constexpr double kLog2 = 1.4426950408889634;  // of e
  constexpr double kLn2High = 0x1.62e42feep-1;  // 32 bits: exact times any exponent here
  constexpr double kLn2Low = 1.9082149292705877e-10;
  // 1 / i! from i = 13 down; the next would add less than 5e-18.
  constexpr double kCoefficients[] = {1 / 6227020800.0,
                                      1 / 479001600.0,
                                      1 / 39916800.0,
                                      1 / 3628800.0,
                                      1 / 362880.0,
                                      1 / 40320.0,
                                      1 / 5040.0,
                                      1 / 720.0,
                                      1 / 120.0,
                                      1 / 24.0,
                                      1 / 6.0,
                                      1 / 2.0,
                                      1,
                                      1};
  if (!(x >= -746)) return x < 0 ? 0 : x;
  if (x > 710) return HUGE_VAL;
  const int exponent = static_cast<int>(x * kLog2 + (x < 0 ? -0.5 : 0.5));
  const double rest = (x - exponent * kLn2High) - exponent * kLn2Low;
  double sum = 0;
  for (const double coefficient : kCoefficients) sum = sum * rest + coefficient;
  return std::ldexp(sum, exponent);
}

}  // namespace muster

#endif  // MUSTER_KERNELS_PORTABLE_EXP_H_
