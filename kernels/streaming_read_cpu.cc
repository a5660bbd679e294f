#include "kernels/simd_targets.h"
#include "kernels/streaming_read.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/streaming_read_cpu.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace muster {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLine = 64;    // bytes
constexpr size_t kAhead = 512;  // bytes that a prefetch is ahead of a read

using WordTag = hn::CappedTag<uint64_t, kLine / sizeof(uint64_t)>;
using Words = hn::Vec<WordTag>;

HWY_INLINE Words AddLine(WordTag d, const std::byte* line, Words sum) {
  hwy::Prefetch(line + kAhead);
  const auto* words = reinterpret_cast<const uint64_t*>(line);
  for (size_t i = 0; i < kLine / sizeof(uint64_t); i += hn::Lanes(d)) {
    sum = hn::Add(sum, hn::LoadU(d, words + i));
  }
  return sum;
}

size_t StreamingRead(const std::byte* data, size_t bytes) {
  const WordTag d;
  const size_t quarter = bytes / 4;
  Words a = hn::Zero(d), b = a, c = a, e = a;
  for (size_t i = 0; i < quarter; i += kLine) {
    a = AddLine(d, data + i, a);
    b = AddLine(d, data + quarter + i, b);
    c = AddLine(d, data + 2 * quarter + i, c);
    e = AddLine(d, data + 3 * quarter + i, e);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

}  // namespace HWY_NAMESPACE
}  // namespace muster
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace muster {

HWY_EXPORT(StreamingRead);

size_t StreamingReadCpu(const std::byte* data, size_t bytes) {
  return HWY_DYNAMIC_DISPATCH(StreamingRead)(data, bytes);
}

}  // namespace muster
#endif  // HWY_ONCE
