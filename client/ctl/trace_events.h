// Spans of a fleet as a file that trace viewers open.
#ifndef MUSTER_CLIENT_CTL_TRACE_EVENTS_H_
#define MUSTER_CLIENT_CTL_TRACE_EVENTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/wire_json.h"
#include "proto/muster/v1/trace.pb.h"

namespace muster::ctl {

// What was collected from one worker.
struct WorkerTrace {
  std::string worker_id;
  absl::Duration clock_offset;  // what its clock was ahead of this host's
  absl::Duration round_trip;    // within which that was found
  std::vector<v1::Span> spans;
  uint64_t lost = 0;
};

// {"traceEvents": [...]} of the Trace Event Format: a process per rank, threads within it for
// steps, what they do in collectives, changes of shape and requests, all on this host's clock and
// from the first span on. The same traces in any order make the same events.
Json TraceEvents(const std::vector<WorkerTrace>& traces);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TRACE_EVENTS_H_
