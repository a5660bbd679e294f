// Typed, bounded access to the fields of a JSON object.
#ifndef MUSTER_WORKER_MODEL_JSON_OBJECT_H_
#define MUSTER_WORKER_MODEL_JSON_OBJECT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

// A half-line of text per value, for messages: "hidden_size is 12.5".
std::string Excerpt(const nlohmann::json& value);

// One object of a file and where it stands in it. Every error is kModelUnusable and begins with the
// place and the field. A field that is null counts as absent. The JSON outlives the object.
//
// It remembers which fields it was asked for, so that those which nobody knows can be refused. Used
// by one thread.
class JsonObject {
 public:
  // `place`: "config.json", or "config.json: rope_scaling".
  // The value must be an object.
  static absl::StatusOr<JsonObject> Create(const nlohmann::json& value, absl::string_view place);

  bool Has(absl::string_view field) const { return Find(field) != nullptr; }
  // Whether the field is there, be it null.
  bool Mentions(absl::string_view field) const;
  // The value, or null where the field is absent.
  const nlohmann::json* Find(absl::string_view field) const;

  // A whole number in [min, max]; required unless there is a `fallback`.
  absl::StatusOr<int64_t> Integer(absl::string_view field, int64_t min, int64_t max,
                                  std::optional<int64_t> fallback = std::nullopt) const;
  // A finite number in [min, max], whole or not.
  absl::StatusOr<double> Number(absl::string_view field, double min, double max,
                                std::optional<double> fallback = std::nullopt) const;
  absl::StatusOr<bool> Boolean(absl::string_view field, bool fallback) const;
  absl::StatusOr<std::string> String(absl::string_view field,
                                     std::optional<std::string> fallback = std::nullopt) const;
  // One whole number or a list of them, each in [min, max]; empty where the field is absent.
  absl::StatusOr<std::vector<int64_t>> Integers(absl::string_view field, int64_t min,
                                                int64_t max) const;
  // A list of strings; empty where the field is absent.
  absl::StatusOr<std::vector<std::string>> Strings(absl::string_view field) const;
  // A nested object; its place names the field.
  absl::StatusOr<JsonObject> Object(absl::string_view field) const;

  // The fields that nobody has asked for, but for those that are null.
  std::vector<std::string> Unasked() const;

  const std::string& place() const { return place_; }

 private:
  JsonObject(const nlohmann::json& value, std::string place)
      : value_(&value), place_(std::move(place)) {}

  absl::Status Missing(absl::string_view field) const;
  absl::Status Wrong(absl::string_view field, absl::string_view expected) const;
  absl::StatusOr<int64_t> ToInteger(absl::string_view field, const nlohmann::json& value,
                                    int64_t min, int64_t max) const;

  const nlohmann::json* value_;
  std::string place_;
  mutable std::set<std::string, std::less<>> asked_;
};

// Parses strict JSON without duplicate keys in any object. Errors begin with `place`.
absl::StatusOr<std::unique_ptr<nlohmann::json>> ParseJson(absl::string_view text,
                                                          absl::string_view place);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_JSON_OBJECT_H_
