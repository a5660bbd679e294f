// What `musterctl top` shows, as lines that fit a screen.
#ifndef MUSTER_CLIENT_CTL_TOP_VIEW_H_
#define MUSTER_CLIENT_CTL_TOP_VIEW_H_

#include <deque>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/wire_json.h"
#include "client/ctl/screen.h"
#include "client/ctl/top_rates.h"

namespace muster::ctl {

struct TopFrame {
  std::string coordinator;  // its address
  absl::Time time;
  v1::GetTopologyResponse topology;
  v1::ListWorkersResponse workers;
  v1::ListOperationsResponse operations;
  std::deque<v1::WatchEventsResponse> events;  // the latest, oldest first
  TopRates rates;
  // Why what is shown is not of now; empty otherwise.
  std::string trouble;
};

// No line is wider than the screen and there are no more than fit it; 0 rows are as many as it
// takes. What does not fit is left out from below, and said so. A screen of 110 columns or more
// shows more of every worker.
std::vector<ScreenLine> TopLines(const TopFrame& frame, const ScreenSize& size);

Json TopJson(const TopFrame& frame);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TOP_VIEW_H_
