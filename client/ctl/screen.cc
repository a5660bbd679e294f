#include "client/ctl/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "absl/strings/str_cat.h"

namespace muster::ctl {
namespace {

// The second page, no cursor, and lines that are cut rather than wrapped.
constexpr char kEnter[] = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";
constexpr char kLeave[] = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr char kEndOfText = 4;
constexpr char kInterrupt = 3;
constexpr char kRedraw = 12;
constexpr char kSuspend = 26;

bool IsIgnored(int signal) {
  struct sigaction action;
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

absl::string_view Begin(ScreenLine::Style style) {
  switch (style) {
    case ScreenLine::Style::kPlain:
      return "";
    case ScreenLine::Style::kTitle:
      return "\x1b[7m";
    case ScreenLine::Style::kHeading:
      return "\x1b[1m";
    case ScreenLine::Style::kAlarm:
      return "\x1b[31m";
    case ScreenLine::Style::kDim:
      return "\x1b[2m";
  }
  return "";
}

}  // namespace

ScreenInputs::ScreenInputs(int keys) : keys_(keys) {
  sigset_t taken;
  sigemptyset(&taken);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) {
    // nohup means it.
    if (!IsIgnored(signal)) sigaddset(&taken, signal);
  }
  pthread_sigmask(SIG_BLOCK, &taken, nullptr);
  signals_ = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
  // A terminal that is gone is noticed by what a write returns; one that another program has is
  // drawn to all the same.
  for (const int signal : {SIGPIPE, SIGTTOU}) std::signal(signal, SIG_IGN);
}

ScreenInputs::~ScreenInputs() { close(signals_); }

ScreenInput ScreenInputs::Wait(absl::Duration timeout) {
  pollfd sources[] = {{signals_, POLLIN, 0}, {keys_, POLLIN, 0}};
  const timespec limit = absl::ToTimespec(std::max(absl::ZeroDuration(), timeout));
  if (ppoll(sources, std::size(sources), &limit, nullptr) <= 0) return ScreenInput::kNothing;
  if (sources[0].revents != 0) return TakeSignal();
  return TakeKey();
}

ScreenInput ScreenInputs::TakeSignal() {
  signalfd_siginfo info;
  if (read(signals_, &info, sizeof(info)) != sizeof(info)) return ScreenInput::kNothing;
  if (info.ssi_signo == SIGWINCH) return ScreenInput::kRedraw;
  return info.ssi_signo == SIGTSTP ? ScreenInput::kSuspend : ScreenInput::kQuit;
}

ScreenInput ScreenInputs::TakeKey() {
  char key = 0;
  const ssize_t count = read(keys_, &key, 1);
  if (count < 0 && errno == EINTR) return ScreenInput::kNothing;
  // Nobody will type any more.
  if (count <= 0) {
    keys_ = -1;
    return ScreenInput::kNothing;
  }
  if (key == 'q' || key == 'Q' || key == kInterrupt || key == kEndOfText) return ScreenInput::kQuit;
  if (key == kSuspend) return ScreenInput::kSuspend;
  return key == kRedraw ? ScreenInput::kRedraw : ScreenInput::kNothing;
}

Screen::Screen(int in, int out, bool color) : in_(in), out_(out), color_(color) {
  termios settings;
  if (tcgetattr(in, &settings) == 0) settings_ = settings;
  Enter();
}

Screen::~Screen() { Leave(); }

void Screen::Enter() {
  if (entered_) return;
  entered_ = true;
  if (settings_.has_value()) {
    termios settings = *settings_;
    // Ctrl-C and Ctrl-Z come as keys, so that nothing happens before the terminal is left.
    settings.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    settings.c_iflag &= ~static_cast<tcflag_t>(IXON);
    settings.c_cc[VMIN] = 1;
    settings.c_cc[VTIME] = 0;
    tcsetattr(in_, TCSADRAIN, &settings);
  }
  Write(kEnter);
}

void Screen::Leave() {
  if (!entered_) return;
  entered_ = false;
  Write(kLeave);
  // What was typed too much is not for the shell.
  if (settings_.has_value()) tcsetattr(in_, TCSAFLUSH, &*settings_);
}

ScreenSize Screen::Size() const {
  winsize size;
  if (ioctl(out_, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
  return {size.ws_col, size.ws_row};
}

bool Screen::Draw(const std::vector<ScreenLine>& lines) {
  std::string bytes = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) {
    // Erased first: behind a line that fills the screen the cursor stands on its last character.
    absl::StrAppend(&bytes, i == 0 ? "" : "\r\n", "\x1b[2K",
                    color_ ? Styled(lines[i]) : lines[i].text);
  }
  const bool full = static_cast<int>(lines.size()) >= Size().rows;
  return Write(bytes + (full ? "" : "\r\n\x1b[J"));
}

bool Screen::Write(const std::string& bytes) {
  for (absl::string_view left = bytes; !left.empty();) {
    const ssize_t count = write(out_, left.data(), left.size());
    if (count < 0 && errno != EINTR) return false;
    left.remove_prefix(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  }
  return true;
}

std::string Styled(const ScreenLine& line) {
  const absl::string_view begin = Begin(line.style);
  return begin.empty() ? line.text : absl::StrCat(begin, line.text, "\x1b[0m");
}

}  // namespace muster::ctl
