// A terminal that a program has to itself for a while, and leaves as it was.
#ifndef MUSTER_CLIENT_CTL_SCREEN_H_
#define MUSTER_CLIENT_CTL_SCREEN_H_

#include <termios.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace muster::ctl {

struct ScreenSize {
  int columns = 80;
  int rows = 24;
};

struct ScreenLine {
  enum class Style { kPlain, kTitle, kHeading, kAlarm, kDim };

  std::string text;
  Style style = Style::kPlain;
};

// What happened to a program that waits.
enum class ScreenInput { kNothing, kQuit, kRedraw, kSuspend };

// What asks a program that runs in a terminal to end, or to draw itself again: keys and signals.
// Make it before any thread is started: it blocks SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and
// SIGWINCH (where they were not ignored before), which threads inherit.
class ScreenInputs {
 public:
  // `keys` is a terminal's descriptor, or -1 for signals alone.
  explicit ScreenInputs(int keys);
  ~ScreenInputs();
  ScreenInputs(const ScreenInputs&) = delete;
  ScreenInputs& operator=(const ScreenInputs&) = delete;

  // Waits for a key or a signal. q, Ctrl-C and whatever else asks to end are kQuit.
  ScreenInput Wait(absl::Duration timeout);

 private:
  ScreenInput TakeSignal();
  ScreenInput TakeKey();

  int keys_;
  int signals_;  // a descriptor to read them from
};

// The second page of the terminal `out`, without a cursor; keys of `in`, where that is a terminal,
// come one by one and unseen.
class Screen {
 public:
  Screen(int in, int out, bool color);
  // As Leave.
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Takes the terminal (again).
  void Enter();
  // Gives it back as it was.
  void Leave();
  ScreenSize Size() const;
  // As many lines as the size has at most, none wider. False when the terminal is gone.
  bool Draw(const std::vector<ScreenLine>& lines);

 private:
  bool Write(const std::string& bytes);

  const int in_;
  const int out_;
  const bool color_;
  bool entered_ = false;
  std::optional<termios> settings_;  // of before Enter; none: `in` is no terminal
};

// The text, with the escape sequences of its style around it.
std::string Styled(const ScreenLine& line);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_SCREEN_H_
