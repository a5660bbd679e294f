#include "client/ctl/man_page.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace muster::ctl {
namespace {

// `text` as it is: no character of it means anything to troff, and a dash is the one of a keyboard.
std::string Escape(absl::string_view text) {
  std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"},
                                                   {"-", "\\-"},
                                                   {"`", "\\(ga"},
                                                   {"'", "\\(aq"},
                                                   {"^", "\\(ha"},
                                                   {"~", "\\(ti"}});
  if (absl::StartsWith(escaped, ".")) escaped.insert(0, "\\&");
  return escaped;
}

// Lines that follow each other are one paragraph; those that begin with spaces stay as they are.
void AppendText(absl::string_view text, std::string& page) {
  bool example = false;
  const auto set_example = [&](bool now) {
    if (now != example) absl::StrAppend(&page, now ? ".PP\n.nf\n" : ".fi\n");
    example = now;
  };
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StripAsciiWhitespace(line).empty()) {
      set_example(false);
      absl::StrAppend(&page, ".PP\n");
      continue;
    }
    set_example(line[0] == ' ');
    absl::StrAppend(&page, Escape(line), "\n");
  }
  set_example(false);
}

// "\fB\-f\fR, \fB\-\-follow\fR \fIN\fR"
std::string OptionHead(const OptionText& option) {
  std::string head =
      absl::StrJoin(option.names, ", ", [](std::string* out, const std::string& name) {
        absl::StrAppend(out, "\\fB", Escape(name), "\\fR");
      });
  const std::string value =
      option.value.empty() ? "" : absl::StrCat("\\fI", Escape(option.value), "\\fR");
  return absl::StrCat(head, head.empty() || value.empty() ? "" : " ", value);
}

// Every command has --help, which the page says once.
bool IsHelp(const OptionText& option) {
  return !option.names.empty() && option.names.back() == "--help";
}

void AppendOptions(const std::vector<OptionText>& options, std::string& page) {
  for (const OptionText& option : options) {
    absl::StrAppend(&page, ".TP\n", OptionHead(option), "\n", Escape(option.description), "\n");
    if (option.choices.empty()) continue;
    absl::StrAppend(&page, ".br\nOne of ", Escape(absl::StrJoin(option.choices, ", ")), ".\n");
  }
}

// The first sentence, for the line by which the page is found.
std::string Summary(const CommandText& program) {
  const std::string& text = program.description;
  const size_t end = std::min(text.find('\n'), text.find(". "));
  return std::string(absl::StripSuffix(absl::string_view(text).substr(0, end), "."));
}

}  // namespace

std::string ManPage(const CommandText& program) {
  const std::string name = Escape(program.name);
  std::string page = absl::StrCat(
      ".\\\" Printed by `", program.name, " man`.\n.TH ", absl::AsciiStrToUpper(program.name),
      " 1 \"\" Muster \"User Commands\"\n.SH NAME\n", name, " \\- ", Escape(Summary(program)),
      "\n.SH SYNOPSIS\n.B ", name, "\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIoptions\\fR]\n",
      ".SH DESCRIPTION\n");
  AppendText(program.description, page);
  absl::StrAppend(&page, ".SH OPTIONS\nBefore or after every command:\n");
  AppendOptions(program.options, page);
  absl::StrAppend(&page, ".SH COMMANDS\n");
  for (const CommandText& command : CommandsOf(program)) {
    absl::StrAppend(&page, ".SS ", name, " ", Escape(command.name), "\n");
    AppendText(absl::StrCat(command.description, "."), page);
    std::vector<OptionText> options = command.options;
    options.erase(std::remove_if(options.begin(), options.end(), IsHelp), options.end());
    AppendOptions(options, page);
    if (command.footer.empty()) continue;
    absl::StrAppend(&page, ".PP\n");
    AppendText(command.footer, page);
  }
  absl::StrAppend(&page, ".SH NOTES\n");
  AppendText(program.footer, page);
  return page;
}

}  // namespace muster::ctl
