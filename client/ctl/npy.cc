#include "client/ctl/npy.h"

#include <cstring>
#include <optional>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace muster::ctl {
namespace {

#ifndef ABSL_IS_LITTLE_ENDIAN
#error "Values are copied as they lie in memory."
#endif

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr absl::string_view kFloat32 = "<f4";
constexpr size_t kAlignment = 64;
constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxHeader = size_t{64} << 10;

absl::Status Refuse(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("wants a .npy file of float32: ", what));
}

// Little-endian number of `size` bytes.
size_t Number(absl::string_view bytes, size_t size) {
  size_t number = 0;
  for (size_t i = size; i-- > 0;) number = number << 8 | static_cast<unsigned char>(bytes[i]);
  return number;
}

// Takes the header's text, a Python dictionary, from the front of `bytes`.
absl::StatusOr<absl::string_view> TakeHeader(absl::string_view& bytes) {
  if (!absl::ConsumePrefix(&bytes, kMagic) || bytes.size() < 2) {
    return Refuse("it does not begin as one");
  }
  const int major = static_cast<unsigned char>(bytes[0]);
  if (major < 1 || major > 3) return Refuse(absl::StrCat("version ", major, " is unknown"));
  bytes.remove_prefix(2);
  const size_t width = major == 1 ? 2 : 4;
  if (bytes.size() < width) return Refuse("it ends within its header");
  const size_t size = Number(bytes, width);
  bytes.remove_prefix(width);
  if (size > kMaxHeader) return Refuse(absl::StrCat("its header has ", size, " bytes"));
  if (size > bytes.size()) return Refuse("it ends within its header");
  const absl::string_view header = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return header;
}

// Reads {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } in any order.
class HeaderReader {
 public:
  explicit HeaderReader(absl::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<uint64_t>> Shape() {
    if (!Take("{")) return Refuse("its header is no dictionary");
    while (!Take("}")) {
      MUSTER_ASSIGN_OR_RETURN(const absl::string_view key, Quoted());
      if (!Take(":")) return Refuse("its header has a key without a value");
      MUSTER_RETURN_IF_ERROR(Value(key));
      if (!Take(",") && text_.substr(0, 1) != "}") return Refuse("its header does not end");
    }
    SkipSpace();
    if (!text_.empty()) return Refuse("its header goes on after its end");
    if (!float32_ || !c_order_ || !shape_.has_value()) return Refuse("its header lacks a key");
    return *shape_;
  }

 private:
  absl::Status Value(absl::string_view key) {
    if (key == "descr") {
      MUSTER_ASSIGN_OR_RETURN(const absl::string_view type, Quoted());
      float32_ = type == kFloat32;
      return float32_ ? absl::OkStatus() : Refuse(absl::StrCat("its type is '", type, "'"));
    }
    if (key == "fortran_order") {
      c_order_ = Take("False");
      return c_order_ ? absl::OkStatus() : Refuse("it is in Fortran order");
    }
    if (key == "shape") return TakeShape();
    return Refuse(absl::StrCat("its header has an unknown key '", key, "'"));
  }

  absl::Status TakeShape() {
    shape_.emplace();
    if (!Take("(")) return Refuse("its shape is no tuple");
    while (!Take(")")) {
      SkipSpace();
      size_t digits = 0;
      while (digits < text_.size() && absl::ascii_isdigit(text_[digits])) ++digits;
      uint64_t size = 0;
      if (!absl::SimpleAtoi(text_.substr(0, digits), &size) || shape_->size() == kMaxDimensions) {
        return Refuse("its shape is no tuple of sizes");
      }
      text_.remove_prefix(digits);
      shape_->push_back(size);
      if (!Take(",") && text_.substr(0, 1) != ")") return Refuse("its shape does not end");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<absl::string_view> Quoted() {
    SkipSpace();
    const absl::string_view quote = text_.substr(0, 1);
    if (quote != "'" && quote != "\"") return Refuse("its header lacks a quoted word");
    const size_t end = text_.find(quote, 1);
    if (end == absl::string_view::npos) return Refuse("its header has a word without an end");
    const absl::string_view word = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return word;
  }

  bool Take(absl::string_view token) {
    SkipSpace();
    const bool taken = absl::ConsumePrefix(&text_, token);
    SkipSpace();
    return taken;
  }

  void SkipSpace() { text_ = absl::StripLeadingAsciiWhitespace(text_); }

  absl::string_view text_;
  bool float32_ = false;
  bool c_order_ = false;
  std::optional<std::vector<uint64_t>> shape_;
};

// Nothing when 64 bits do not hold the bytes.
std::optional<uint64_t> BytesOf(const std::vector<uint64_t>& shape) {
  uint64_t bytes = sizeof(float);
  for (const uint64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

}  // namespace

std::string ToNpy(const FloatArray& array) {
  // A tuple of one element has a comma.
  const std::string shape =
      absl::StrCat("(", absl::StrJoin(array.shape, ", "), array.shape.size() == 1 ? ",)" : ")");
  std::string header =
      absl::StrCat("{'descr': '", kFloat32, "', 'fortran_order': False, 'shape': ", shape, ", }");
  const size_t before = kMagic.size() + 4;
  const size_t total = (before + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  header.resize(total - before - 1, ' ');
  header += '\n';
  std::string bytes(kMagic);
  bytes +=
      {'\1', '\0', static_cast<char>(header.size() & 0xFF), static_cast<char>(header.size() >> 8)};
  bytes += header;
  const size_t start = bytes.size();
  bytes.resize(start + array.values.size() * sizeof(float));
  if (!array.values.empty()) {
    std::memcpy(bytes.data() + start, array.values.data(), array.values.size() * sizeof(float));
  }
  return bytes;
}

absl::StatusOr<FloatArray> ParseNpy(absl::string_view bytes) {
  MUSTER_ASSIGN_OR_RETURN(const absl::string_view header, TakeHeader(bytes));
  FloatArray array;
  MUSTER_ASSIGN_OR_RETURN(array.shape, HeaderReader(header).Shape());
  if (BytesOf(array.shape) != bytes.size()) {
    return Refuse(absl::StrCat("its shape is (", absl::StrJoin(array.shape, ", "), "), and ",
                               bytes.size(), " bytes follow"));
  }
  array.values.resize(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(array.values.data(), bytes.data(), bytes.size());
  return array;
}

}  // namespace muster::ctl
