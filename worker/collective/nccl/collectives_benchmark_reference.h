#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_COLLECTIVES_BENCHMARK_REFERENCE_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_COLLECTIVES_BENCHMARK_REFERENCE_H_

#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "kernels/dtype.h"

namespace muster {

inline constexpr double kRounding = 0x1p-8, kFloatRounding = 0x1p-24;  // of bfloat16, of float32

// An all-reduce + residual + norm in double precision, to compare with.
struct NormReference {
  std::vector<const BFloat16*> summands;
  const BFloat16* residual;
  const float* weight;
  int tokens, hidden;
  float eps;
  int roundings;  // to bfloat16, on the way to the residual

  size_t count() const { return static_cast<size_t>(tokens) * static_cast<size_t>(hidden); }

  // DATA_LOSS names the first element that is off by more than its roundings explain.
  absl::Status Check(const std::vector<BFloat16>& residual_out,
                     const std::vector<BFloat16>& norm_out) const {
    for (size_t i = 0; i < count(); ++i) {
      double wanted = static_cast<float>(residual[i]), magnitude = std::abs(wanted);
      for (const BFloat16* summand : summands) {
        const double value = static_cast<float>(summand[i]);
        wanted += value;
        magnitude += std::abs(value);
      }
      const double float_roundings = static_cast<double>(summands.size()) * kFloatRounding;
      MUSTER_RETURN_IF_ERROR(
          Expect("residual", i, residual_out[i], wanted,
                 float_roundings * magnitude +
                     kRounding * (std::abs(wanted) + (roundings - 1) * magnitude)));
    }
    for (int token = 0; token < tokens; ++token) {
      const size_t begin = static_cast<size_t>(token) * static_cast<size_t>(hidden);
      MUSTER_RETURN_IF_ERROR(CheckRow(begin, residual_out.data() + begin, norm_out.data() + begin));
    }
    return absl::OkStatus();
  }

 private:
  // Of the residual that was really stored.
  absl::Status CheckRow(size_t begin, const BFloat16* row, const BFloat16* norm) const {
    double squares = 0;
    for (int i = 0; i < hidden; ++i) {
      const double value = static_cast<float>(row[i]);
      squares += value * value;
    }
    const double scale = 1 / std::sqrt(squares / hidden + double{eps});
    const double relative = (hidden / 2.0 + 6) * kFloatRounding + kRounding;
    for (int i = 0; i < hidden; ++i) {
      const double wanted = static_cast<float>(row[i]) * scale * weight[i];
      MUSTER_RETURN_IF_ERROR(Expect("norm", begin + static_cast<size_t>(i), norm[i], wanted,
                                    relative * std::abs(wanted)));
    }
    return absl::OkStatus();
  }

  static absl::Status Expect(absl::string_view what, size_t i, BFloat16 got, double wanted,
                             double tolerance) {
    const double value = static_cast<float>(got);
    if (std::abs(value - wanted) <= 1.01 * tolerance) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(what, " at ", i, ": ", value, " for ", wanted));
  }
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_COLLECTIVES_BENCHMARK_REFERENCE_H_
