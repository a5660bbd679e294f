#include "worker/model/cpu/onednn_linear.h"

#include <omp.h>

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/skinny_matmul.h"

namespace muster {
namespace {

using dnnl::memory;

constexpr int64_t kColumnUnit = 64;  // a part is a multiple of it, but for the last

memory::data_type TypeOf(DType dtype) {
  return dtype == DType::kBFloat16 ? memory::data_type::bf16 : memory::data_type::f32;
}

const dnnl::engine& CpuEngine() {
  static const dnnl::engine& engine = *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// oneDNN computes on as many OpenMP threads as the calling thread may start.
void UseThisThreadAlone() {
  thread_local bool done = false;
  if (!done) omp_set_num_threads(1);
  done = true;
}

dnnl::matmul::primitive_desc Describe(const OneDnnLinear::Shape& shape, int rows, int64_t columns) {
  const memory::desc x({rows, shape.k}, TypeOf(ActivationDType(shape.dtype)), {shape.k, 1});
  const memory::desc w({shape.k, columns}, TypeOf(shape.dtype), {1, shape.k});
  const memory::desc y({rows, columns}, memory::data_type::f32, {shape.n, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return {dnnl::matmul::desc(x, w, y), attributes, CpuEngine()};
}

}  // namespace

struct OneDnnLinear::Product {
  explicit Product(const dnnl::matmul::primitive_desc& desc)
      : matmul(desc),
        stream(CpuEngine()),
        x(desc.src_desc(), CpuEngine(), nullptr),
        weights(desc.weights_desc(), CpuEngine(), nullptr),
        y(desc.dst_desc(), CpuEngine(), nullptr),
        scratchpad(desc.scratchpad_desc(), CpuEngine(), nullptr) {}

  dnnl::matmul matmul;
  dnnl::stream stream;
  memory x, weights, y, scratchpad;
};

OneDnnLinear::OneDnnLinear(const Shape& shape, int parts) : shape_(shape) {
  const int64_t units = (shape.n + kColumnUnit - 1) / kColumnUnit;
  const int64_t count = std::clamp<int64_t>(parts, 1, units);
  for (int64_t part = 0; part <= count; ++part) {
    cuts_.push_back(std::min(units * part / count * kColumnUnit, shape.n));
  }
}

OneDnnLinear::~OneDnnLinear() = default;

absl::StatusOr<std::unique_ptr<OneDnnLinear>> OneDnnLinear::Create(
    const Shape& shape, const std::vector<int>& row_counts, int parts) {
  UseThisThreadAlone();
  auto linear = absl::WrapUnique(new OneDnnLinear(shape, parts));
  try {
    for (int rows : row_counts) {
      for (int part = 0; part < linear->parts(); ++part) {
        const auto desc = Describe(shape, rows, linear->cuts_[part + 1] - linear->cuts_[part]);
        linear->products_[rows].push_back(std::make_unique<Product>(desc));
        linear->scratchpad_bytes_ =
            std::max(linear->scratchpad_bytes_, desc.scratchpad_desc().get_size());
      }
    }
  } catch (const dnnl::error& error) {
    const absl::StatusCode code = error.status == dnnl_unimplemented
                                      ? absl::StatusCode::kUnimplemented
                                      : absl::StatusCode::kInternal;
    return absl::Status(
        code, absl::StrCat("oneDNN cannot multiply [rows, ", shape.k, "] by [", shape.k, ", ",
                           shape.n, "] in ", Name(shape.dtype), ": ", error.what()));
  }
  return linear;
}

absl::Status OneDnnLinear::Run(int rows, int part, const Arguments& arguments) {
  UseThisThreadAlone();
  Product& product = *products_.at(rows)[part];
  const int64_t begin = cuts_[part];
  const auto* weights = static_cast<const std::byte*>(arguments.weights) +
                        begin * shape_.k * static_cast<int64_t>(SizeOf(shape_.dtype));
  // oneDNN takes pointers to mutable memory, and writes to y and the scratchpad alone. Its C
  // interface, because the C++ one makes a vector of the arguments.
  const auto bind = [](memory& memory, const void* data) {
    dnnl_memory_set_data_handle(memory.get(), const_cast<void*>(data));
    return memory.get();
  };
  const dnnl_exec_arg_t bound[] = {
      {DNNL_ARG_SRC, bind(product.x, arguments.x)},
      {DNNL_ARG_WEIGHTS, bind(product.weights, weights)},
      {DNNL_ARG_DST, bind(product.y, arguments.y + begin)},
      {DNNL_ARG_SCRATCHPAD, bind(product.scratchpad, arguments.scratchpad)}};
  const dnnl_status_t status =
      dnnl_primitive_execute(product.matmul.get(), product.stream.get(), std::size(bound), bound);
  if (status == dnnl_success) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("oneDNN matmul failed with status ", status));
}

}  // namespace muster
