#include "worker/service/trace_parent.h"

#include <grpcpp/server_context.h>

#include <iterator>

namespace muster {

TraceContext TraceOf(const grpc::ServerContextBase& context) {
  const auto [begin, end] = context.client_metadata().equal_range("traceparent");
  if (begin == end || std::next(begin) != end) return {};
  return ParseTraceParent({begin->second.data(), begin->second.size()}).value_or(TraceContext());
}

}  // namespace muster
