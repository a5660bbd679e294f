// What was answered, for those who ask again.
#ifndef MUSTER_WORKER_ENGINE_RETRY_RECORD_H_
#define MUSTER_WORKER_ENGINE_RETRY_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "worker/engine/batch.h"

namespace muster {

// Of the body of a request: all but its client and request ids.
uint64_t BodyDigest(const ForwardBatch& batch);

// The last answers of requests that named themselves, by (client, request id). Not thread-safe.
class RetryRecord {
 public:
  struct Limits {
    size_t answers = 64;
    size_t bytes = size_t{64} << 20;  // of what they return
  };
  struct Answer {
    uint64_t body = 0;  // digest
    std::shared_ptr<const ForwardResult> result;
  };

  explicit RetryRecord(const Limits& limits) : limits_(limits) {}

  // Null when there is none.
  const Answer* Find(const std::string& client, const std::string& request) const;
  // Keeps an answer, and forgets the oldest beyond the limits. Once per (client, request id).
  void Keep(const std::string& client, const std::string& request, Answer answer);

  size_t size() const { return order_.size(); }

 private:
  // The ids, of which the first is told apart by its length.
  static std::string KeyOf(const std::string& client, const std::string& request);

  const Limits limits_;
  absl::flat_hash_map<std::string, Answer> answers_;
  std::deque<std::string> order_;  // keys, the oldest first
  size_t bytes_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_RETRY_RECORD_H_
