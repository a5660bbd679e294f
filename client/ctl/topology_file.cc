#include "client/ctl/topology_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/status_macros.h"

namespace muster::ctl {
namespace {

constexpr uint32_t kMaxSize = 1024;
constexpr uint32_t kMaxBucket = 1u << 20;
constexpr size_t kMaxBuckets = 32;
constexpr absl::Duration kMaxTimeout = absl::Hours(1);
constexpr char kKeys[] = "tp, cp, replicas, buckets, drop and timeout";

absl::Status Refuse(const YAML::Node& node, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", node.Mark().line + 1, ": ", what));
}

// What stands there, for a refusal.
std::string Shown(const YAML::Node& node) {
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  return node.IsNull() ? "nothing" : absl::StrCat("'", node.Scalar(), "'");
}

// Quoted text is no number, as in JSON.
std::optional<uint32_t> Number(const YAML::Node& node, uint32_t most) {
  uint32_t number = 0;
  const bool plain = node.IsScalar() && node.Tag() != "!";
  if (!plain || !absl::SimpleAtoi(node.Scalar(), &number)) return std::nullopt;
  if (number < 1 || number > most) return std::nullopt;
  return number;
}

absl::Status ReadSize(const std::string& key, const YAML::Node& value, v1::ParallelConfig& config) {
  const std::optional<uint32_t> size = Number(value, kMaxSize);
  if (!size.has_value()) {
    return Refuse(value, absl::StrCat("'", key, "' wants a whole number from 1 to 1,024, not ",
                                      Shown(value)));
  }
  if (key == "tp") config.set_tp(*size);
  if (key == "cp") config.set_cp(*size);
  if (key == "replicas") config.set_replicas(*size);
  return absl::OkStatus();
}

absl::Status ReadBuckets(const YAML::Node& value, v1::ApplyTopologyRequest& request) {
  constexpr char kWanted[] =
      "'buckets' wants a list of 1 to 32 powers of two, largest first, e.g. [32, 16, 8], not ";
  if (!value.IsSequence() || value.size() == 0 || value.size() > kMaxBuckets) {
    return Refuse(value, absl::StrCat(kWanted, Shown(value)));
  }
  uint32_t before = kMaxBucket + 1;
  for (const auto& entry : value) {
    const std::optional<uint32_t> rows = Number(entry, kMaxBucket);
    if (!rows.has_value() || (*rows & (*rows - 1)) != 0 || *rows >= before) {
      return Refuse(entry, absl::StrCat(kWanted, Shown(entry)));
    }
    before = *rows;
    request.add_buckets(*rows);
  }
  return absl::OkStatus();
}

absl::Status ReadDrop(const YAML::Node& value, v1::ApplyTopologyRequest& request) {
  constexpr char kWanted[] =
      "'drop' wants a list of \"CLIENT/SEQUENCE\", or of \"*\" for all, not ";
  if (!value.IsSequence()) return Refuse(value, absl::StrCat(kWanted, Shown(value)));
  for (const auto& entry : value) {
    const std::string name = entry.IsScalar() ? entry.Scalar() : "";
    if (name != "*" && name.find('/') == std::string::npos) {
      return Refuse(entry, absl::StrCat(kWanted, Shown(entry)));
    }
    request.add_drop(name);
  }
  return absl::OkStatus();
}

absl::Status ReadTimeout(const YAML::Node& value, v1::ApplyTopologyRequest& request) {
  const auto timeout = ParseTimeout(value.IsScalar() ? value.Scalar() : "");
  if (!timeout.ok()) {
    return Refuse(value,
                  absl::StrCat("'timeout' ", timeout.status().message(), ", not ", Shown(value)));
  }
  *request.mutable_timeout() = *timeout;
  return absl::OkStatus();
}

absl::Status ReadEntry(const YAML::Node& key, const YAML::Node& value,
                       v1::ApplyTopologyRequest& request) {
  const std::string name = key.IsScalar() ? key.Scalar() : "";
  if (name == "tp" || name == "cp" || name == "replicas") {
    return ReadSize(name, value, *request.mutable_config());
  }
  if (name == "buckets") return ReadBuckets(value, request);
  if (name == "drop") return ReadDrop(value, request);
  if (name == "timeout") return ReadTimeout(value, request);
  return Refuse(key, absl::StrCat(Shown(key), " is no key of a topology: they are ", kKeys));
}

absl::StatusOr<v1::ApplyTopologyRequest> RequestOf(const YAML::Node& document) {
  if (!document.IsMap()) {
    return Refuse(document, absl::StrCat("wants a mapping with the keys ", kKeys));
  }
  v1::ApplyTopologyRequest request;
  std::set<std::string> seen;
  for (const auto& entry : document) {
    MUSTER_RETURN_IF_ERROR(ReadEntry(entry.first, entry.second, request));
    if (!seen.insert(entry.first.Scalar()).second) {
      return Refuse(entry.first, absl::StrCat("'", entry.first.Scalar(), "' stands there twice"));
    }
  }
  return request;
}

}  // namespace

absl::StatusOr<v1::ApplyTopologyRequest> ParseTopologyFile(const std::string& text) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("it is empty; it wants a mapping with the keys ", kKeys));
    }
    if (documents.size() > 1) return Refuse(documents[1], "begins a second document");
    return RequestOf(documents[0]);
  } catch (const YAML::Exception& error) {
    const std::string where =
        error.mark.is_null() ? "" : absl::StrCat("line ", error.mark.line + 1, ": ");
    return absl::InvalidArgumentError(absl::StrCat(where, "neither YAML nor JSON: ", error.msg));
  }
}

absl::StatusOr<google::protobuf::Duration> ParseTimeout(const std::string& text) {
  absl::Duration timeout;
  if (!absl::ParseDuration(text, &timeout) || timeout <= absl::ZeroDuration() ||
      timeout > kMaxTimeout) {
    return absl::InvalidArgumentError("wants a time such as 90s or 10m, at most 1h");
  }
  google::protobuf::Duration wire;
  const int64_t seconds = absl::IDivDuration(timeout, absl::Seconds(1), &timeout);
  wire.set_seconds(seconds);
  wire.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(timeout)));
  return wire;
}

}  // namespace muster::ctl
