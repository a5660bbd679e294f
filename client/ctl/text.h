// Numbers and columns as people read them.
#ifndef MUSTER_CLIENT_CTL_TEXT_H_
#define MUSTER_CLIENT_CTL_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace muster::ctl {

// "1,456".
std::string WithCommas(uint64_t number);

// Binary units, three digits at most: "512 B", "1.2 MiB", "147 MiB".
std::string HumanBytes(uint64_t bytes);

// "4 ms", "0.4 s", "12 s", "3 min 20 s", "3 h 12 min"; never negative.
std::string HumanDuration(absl::Duration duration);

// "1 worker", "2 workers".
std::string Count(uint64_t number, absl::string_view noun);

// Columns that UTF-8 text of single-width characters takes.
int DisplayWidth(absl::string_view text);

// Spaces added after, or before, up to `width` columns.
std::string PadRight(absl::string_view text, int width);
std::string PadLeft(absl::string_view text, int width);

// The items, joined by ", ", in lines of at most `width` columns (an item alone may be longer).
std::vector<std::string> WrapList(const std::vector<std::string>& items, int width);

// `width` columns, the first `fraction` (clamped to 0 .. 1) of them full: "████░░░░".
std::string Bar(double fraction, int width);

// Columns as wide as their widest cell, two spaces between them, no space at a line's end.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string name;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as there are columns.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

  // The names, then the rows, each ended by a newline.
  std::string ToString() const;

 private:
  std::string Line(const std::vector<std::string>& cells, const std::vector<int>& widths) const;

  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_TEXT_H_
