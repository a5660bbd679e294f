#include "client/ctl/live_lines.h"

#include <sys/ioctl.h>

#include <cstdio>

#include "absl/strings/str_cat.h"

namespace muster::ctl {
namespace {

constexpr int kColumns = 80;

int WidthOf(std::FILE* out) {
  winsize size;
  const bool known = ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kColumns;
}

// The first `width` columns of UTF-8 text.
std::string Cut(absl::string_view text, int width) {
  std::string cut;
  int columns = 0;
  for (const char c : text) {
    if ((c & 0xC0) != 0x80 && ++columns > width) break;
    cut += c;
  }
  return cut;
}

}  // namespace

void LiveLines::Print(absl::string_view line) {
  Clear();
  std::fputs(absl::StrCat(line, "\n").c_str(), terminal_.out);
  std::fflush(terminal_.out);
}

void LiveLines::Rewrite(const std::vector<std::string>& lines) {
  if (!terminal_.live || lines == shown_) return;
  Clear();
  const int width = WidthOf(terminal_.out);
  for (const std::string& line : lines) {
    std::fputs(absl::StrCat(Cut(line, width - 1), "\n").c_str(), terminal_.out);
  }
  std::fflush(terminal_.out);
  shown_ = lines;
}

void LiveLines::Clear() {
  if (shown_.empty()) return;
  std::fputs(absl::StrCat("\033[", shown_.size(), "A\r\033[J").c_str(), terminal_.out);
  std::fflush(terminal_.out);
  shown_.clear();
}

}  // namespace muster::ctl
