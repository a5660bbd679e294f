#include "base/flag_file.h"

#include <yaml-cpp/yaml.h>

#include <istream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;

int LineOf(const YAML::Node& node) { return node.Mark().line + 1; }

absl::Status Refuse(const YAML::Node& node, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", LineOf(node), ": ", what));
}

absl::StatusOr<std::string> ReadAll(std::istream& in) {
  std::string text(kMaxBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() <= kMaxBytes) return text;
  return absl::InvalidArgumentError("it is larger than 1 MiB");
}

absl::StatusOr<std::vector<FlagFileEntry>> EntriesOf(const YAML::Node& document) {
  std::vector<FlagFileEntry> entries;
  if (document.IsNull()) return entries;
  if (!document.IsMap()) return Refuse(document, "wants flags as `name: value`");
  for (const auto& entry : document) {
    const YAML::Node& name = entry.first;
    const YAML::Node& value = entry.second;
    if (!name.IsScalar()) return Refuse(name, "wants a flag's name before the colon");
    if (!value.IsScalar() && !value.IsNull()) {
      return Refuse(value, absl::StrCat("'", name.Scalar(), "' wants one value"));
    }
    entries.push_back(
        {name.Scalar(), value.IsNull() ? std::string() : value.Scalar(), LineOf(name)});
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::vector<FlagFileEntry>> ReadFlagFile(std::istream& in) {
  MUSTER_ASSIGN_OR_RETURN(const std::string text, ReadAll(in));
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.empty()) return std::vector<FlagFileEntry>();
    if (documents.size() > 1) return Refuse(documents[1], "begins a second document");
    return EntriesOf(documents[0]);
  } catch (const YAML::Exception& error) {
    const std::string where =
        error.mark.is_null() ? "" : absl::StrCat("line ", error.mark.line + 1, ": ");
    return absl::InvalidArgumentError(absl::StrCat(where, "neither YAML nor JSON: ", error.msg));
  }
}

}  // namespace muster
