#include "tests/support/rank_channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/strings/cord.h"

namespace muster::testing {
namespace {

// Each field: its length, then its bytes.
std::string Encode(const RankMessage& fields) {
  std::string text;
  for (const std::string& field : fields) {
    const uint64_t length = field.size();
    text.append(reinterpret_cast<const char*>(&length), sizeof(length));
    text.append(field);
  }
  return text;
}

RankMessage Decode(const std::string& text) {
  RankMessage fields;
  for (size_t at = 0; at < text.size();) {
    uint64_t length;
    std::memcpy(&length, text.data() + at, sizeof(length));
    fields.push_back(text.substr(at + sizeof(length), length));
    at += sizeof(length) + length;
  }
  return fields;
}

bool ReceiveExactly(int fd, char* to, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = recv(fd, to, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

RankChannel::~RankChannel() { close(fd_); }

bool RankChannel::Send(const RankMessage& message) {
  const std::string text = Encode({Encode(message)});
  absl::MutexLock lock(&mu_);
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t n = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

std::optional<RankMessage> RankChannel::Receive() {
  uint64_t length;
  if (!ReceiveExactly(fd_, reinterpret_cast<char*>(&length), sizeof(length))) return std::nullopt;
  std::string text(length, '\0');
  if (!ReceiveExactly(fd_, text.data(), text.size())) return std::nullopt;
  return Decode(text);
}

void RankChannel::Shutdown() { shutdown(fd_, SHUT_RDWR); }

std::string EncodeStatus(const absl::Status& status) {
  RankMessage fields = {std::to_string(status.raw_code()), std::string(status.message())};
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    fields.push_back(std::string(url));
    fields.push_back(std::string(payload));
  });
  return Encode(fields);
}

absl::Status DecodeStatus(const std::string& text) {
  const RankMessage fields = Decode(text);
  absl::Status status(static_cast<absl::StatusCode>(std::stoi(fields[0])), fields[1]);
  for (size_t i = 2; i + 1 < fields.size(); i += 2) {
    status.SetPayload(fields[i], absl::Cord(fields[i + 1]));
  }
  return status;
}

}  // namespace muster::testing
