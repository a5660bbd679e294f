// Lines that stay, and below them, on a terminal, lines that are rewritten in place.
#ifndef MUSTER_CLIENT_CTL_LIVE_LINES_H_
#define MUSTER_CLIENT_CTL_LIVE_LINES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/ctl/up_display.h"

namespace muster::ctl {

// Takes away what it rewrites when it goes.
class LiveLines {
 public:
  explicit LiveLines(Terminal terminal) : terminal_(terminal) {}
  ~LiveLines() { Clear(); }
  LiveLines(const LiveLines&) = delete;
  LiveLines& operator=(const LiveLines&) = delete;

  // A line that stays.
  void Print(absl::string_view line);
  // What stands below all that stays from now on, cut to the terminal's width; nothing where lines
  // cannot be rewritten.
  void Rewrite(const std::vector<std::string>& lines);
  void Clear();

  bool live() const { return terminal_.live; }

 private:
  const Terminal terminal_;
  std::vector<std::string> shown_;  // the lines that are rewritten
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_LIVE_LINES_H_
