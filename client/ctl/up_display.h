// `musterctl up` for people: facts line by line, and on a terminal a bar that moves.
#ifndef MUSTER_CLIENT_CTL_UP_DISPLAY_H_
#define MUSTER_CLIENT_CTL_UP_DISPLAY_H_

#include <cstdint>
#include <cstdio>
#include <set>
#include <string>

#include "client/ctl/up_view.h"

namespace muster::ctl {

// Where it is shown.
struct Terminal {
  std::FILE* out = nullptr;
  // Lines may be rewritten.
  bool live = false;
  bool color = false;
};

// Looks at what `out` is, and at NO_COLOR and TERM.
Terminal TerminalOf(std::FILE* out);

class UpDisplay : public UpView {
 public:
  // `titled` begins with a title and ends with what to try next; without it the lines fit into the
  // output of another program, which tells itself of changes of shape.
  UpDisplay(Terminal terminal, bool titled) : terminal_(terminal), titled_(titled) {}

  void Started(const LocalFleet& fleet) override;
  void StandbysStarted(const LocalFleet&) override {}
  void Changed(const FleetSnapshot& snapshot) override;
  void Serving(const FleetSnapshot& snapshot, const v1::GetModelResponse& model) override;
  void ProcessEnded(const ChildProcess& process) override;
  void Failed(const absl::Status& status) override;
  void Stopped(int count, absl::Duration took) override;

 private:
  // "  label      text", the time at the right where there is one.
  void Fact(absl::string_view label, absl::string_view text, absl::string_view time = "");
  // Replaces the line that moves, if the terminal can.
  void Live(const std::string& line);
  void ClearLive();
  void Print(absl::string_view text);

  void ShowModel(const FleetSnapshot& snapshot);
  void ShowTopologies(const FleetSnapshot& snapshot);
  void ShowFinishedPhases(const FleetSnapshot& snapshot);
  void ShowProgress(const FleetSnapshot& snapshot);
  // What befalls a fleet that serves.
  void ShowTurns(const FleetSnapshot& snapshot);
  void ShowCapture(const FleetSnapshot& snapshot, const v1::GetModelResponse& model);
  void ShowLedger(const FleetSnapshot& snapshot);

  const Terminal terminal_;
  const bool titled_;
  bool live_shown_ = false;
  bool model_shown_ = false;
  bool serving_ = false;
  // (replica, epoch) whose picture, and phases whose line is shown.
  std::set<std::pair<uint32_t, uint64_t>> topologies_shown_;
  std::set<std::string> phases_shown_;
  // Bytes of weights per rank, as far as known.
  uint64_t load_bytes_ = 0;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_UP_DISPLAY_H_
