#include "client/ctl/report.h"

#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/yaml_string.h"

namespace muster::ctl {
namespace {

constexpr int kIndent = 2;

bool IsBlock(const Json& json) { return json.is_structured() && !json.empty(); }

// What stands on one line.
std::string Scalar(const Json& json) {
  // Written and read again, invalid bytes are replaced.
  if (json.is_string()) return YamlString(Json::parse(ToLine(json)).get<std::string>());
  return ToLine(json);
}

void AppendBlock(const Json& json, int indent, std::string& text);

// After "key:" or "-".
void AppendValue(const Json& json, int indent, std::string& text) {
  if (!IsBlock(json)) {
    absl::StrAppend(&text, " ", Scalar(json), "\n");
    return;
  }
  text += "\n";
  AppendBlock(json, indent, text);
}

void AppendBlock(const Json& json, int indent, std::string& text) {
  const std::string margin(indent, ' ');
  for (const auto& item : json.items()) {
    absl::StrAppend(&text, margin, json.is_array() ? "-" : absl::StrCat(Scalar(item.key()), ":"));
    AppendValue(item.value(), indent + kIndent, text);
  }
}

}  // namespace

std::string ToYaml(const Json& json) {
  if (!IsBlock(json)) return Scalar(json) + "\n";
  std::string text;
  AppendBlock(json, 0, text);
  return text;
}

void WriteReport(std::ostream& out, Output output, const Json& json) {
  if (output == Output::kYaml) {
    out << "---\n" << ToYaml(json);
  } else {
    out << ToLine(json) << "\n";
  }
  out.flush();
}

}  // namespace muster::ctl
