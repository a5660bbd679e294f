#include "worker/model/json_object.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status_macros.h"
#include "worker/model/model_error.h"

namespace muster {
namespace {

constexpr size_t kExcerptLength = 60;

// Deeper than any file of a model; bounds the memory that hostile text can ask for.
constexpr int kMaxDepth = 32;

// Follows the parser: remembers the first key that stands twice in one object, and values that lie
// too deep, which it drops.
class Structure {
 public:
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kMaxDepth) {
      too_deep_ = true;
      return false;
    }
    if (event == Event::object_start) open_.emplace_back();
    if (event == Event::object_end) open_.pop_back();
    if (event == Event::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && first_.empty()) first_ = key;
    }
    return true;
  }

  const std::string& duplicate() const { return first_; }
  bool too_deep() const { return too_deep_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::string first_;
  bool too_deep_ = false;
};

}  // namespace

std::string Excerpt(const nlohmann::json& value) {
  if (value.is_array() || value.is_object()) {
    return absl::StrCat(value.is_array() ? "a list of " : "an object of ", value.size());
  }
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kExcerptLength) text = absl::StrCat(text.substr(0, kExcerptLength), "...");
  return text;
}

absl::StatusOr<JsonObject> JsonObject::Create(const nlohmann::json& value,
                                              absl::string_view place) {
  if (value.is_object()) return JsonObject(value, std::string(place));
  return ModelUnusable(place, ": must be an object, is ", Excerpt(value));
}

const nlohmann::json* JsonObject::Find(absl::string_view field) const {
  const auto it = value_->find(std::string(field));
  if (it != value_->end()) asked_.insert(it.key());
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonObject::Mentions(absl::string_view field) const {
  return value_->contains(std::string(field));
}

std::vector<std::string> JsonObject::Unasked() const {
  std::vector<std::string> fields;
  for (const auto& [field, value] : value_->items()) {
    if (!value.is_null() && !asked_.contains(field)) fields.push_back(field);
  }
  return fields;
}

absl::Status JsonObject::Missing(absl::string_view field) const {
  return ModelUnusable(place_, ": ", field, " is missing");
}

absl::Status JsonObject::Wrong(absl::string_view field, absl::string_view expected) const {
  return ModelUnusable(place_, ": ", field, " must be ", expected, ", is ", Excerpt(*Find(field)));
}

absl::StatusOr<int64_t> JsonObject::ToInteger(absl::string_view field, const nlohmann::json& value,
                                              int64_t min, int64_t max) const {
  const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{INT64_MAX}
                                               : value.is_number_integer();
  if (fits) {
    const int64_t number = value.get<int64_t>();
    if (number >= min && number <= max) return number;
  }
  return ModelUnusable(place_, ": ", field, " must be a whole number from ", min, " to ", max,
                       ", is ", Excerpt(value));
}

absl::StatusOr<int64_t> JsonObject::Integer(absl::string_view field, int64_t min, int64_t max,
                                            std::optional<int64_t> fallback) const {
  const nlohmann::json* value = Find(field);
  if (value != nullptr) return ToInteger(field, *value, min, max);
  if (fallback.has_value()) return *fallback;
  return Missing(field);
}

absl::StatusOr<double> JsonObject::Number(absl::string_view field, double min, double max,
                                          std::optional<double> fallback) const {
  const nlohmann::json* value = Find(field);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr) return Missing(field);
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (number >= min && number <= max) return number;
  return Wrong(field, absl::StrCat("a number from ", min, " to ", max));
}

absl::StatusOr<bool> JsonObject::Boolean(absl::string_view field, bool fallback) const {
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  return Wrong(field, "true or false");
}

absl::StatusOr<std::string> JsonObject::String(absl::string_view field,
                                               std::optional<std::string> fallback) const {
  const nlohmann::json* value = Find(field);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr) return Missing(field);
  if (value->is_string()) return value->get<std::string>();
  return Wrong(field, "a string");
}

absl::StatusOr<std::vector<int64_t>> JsonObject::Integers(absl::string_view field, int64_t min,
                                                          int64_t max) const {
  std::vector<int64_t> numbers;
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return numbers;
  if (!value->is_array()) {
    MUSTER_ASSIGN_OR_RETURN(const int64_t number, ToInteger(field, *value, min, max));
    return std::vector<int64_t>{number};
  }
  for (const nlohmann::json& element : *value) {
    MUSTER_ASSIGN_OR_RETURN(const int64_t number, ToInteger(field, element, min, max));
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<std::vector<std::string>> JsonObject::Strings(absl::string_view field) const {
  std::vector<std::string> strings;
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return strings;
  if (!value->is_array()) return Wrong(field, "a list of strings");
  for (const nlohmann::json& element : *value) {
    if (!element.is_string()) return Wrong(field, "a list of strings");
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::StatusOr<JsonObject> JsonObject::Object(absl::string_view field) const {
  const nlohmann::json* value = Find(field);
  if (value == nullptr) return Missing(field);
  return Create(*value, absl::StrCat(place_, ": ", field));
}

absl::StatusOr<std::unique_ptr<nlohmann::json>> ParseJson(absl::string_view text,
                                                          absl::string_view place) {
  Structure structure;
  auto value = std::make_unique<nlohmann::json>(nlohmann::json::parse(
      text.begin(), text.end(), std::ref(structure), /*allow_exceptions=*/false));
  if (value->is_discarded() && !structure.too_deep()) {
    return ModelUnusable(place, ": not valid JSON");
  }
  if (structure.too_deep()) {
    return ModelUnusable(place, ": nested more than ", kMaxDepth, " levels deep");
  }
  if (!structure.duplicate().empty()) {
    return ModelUnusable(place, ": ", Excerpt(structure.duplicate()), " stands twice");
  }
  return value;
}

}  // namespace muster
