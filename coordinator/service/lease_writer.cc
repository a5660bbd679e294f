#include "coordinator/service/lease_writer.h"

#include <utility>

#include "base/wire_status.h"

namespace muster {

void LeaseWriter::Welcome(const v1::Welcome& welcome) {
  absl::MutexLock lock(&mu_);
  v1::EnlistResponse response;
  *response.mutable_welcome() = welcome;
  queue_.push_front(std::move(response));
  welcomed_ = true;
  WriteNext();
}

void LeaseWriter::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  queue_.pop_front();
  // A broken stream fails the read that is always under way, and ends there.
  if (ok) WriteNext();
}

void LeaseWriter::End(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (stream_ != nullptr) std::exchange(stream_, nullptr)->Finish(ToGrpc(status));
}

void LeaseWriter::OnEpochAborted(const AbortNotice& notice) {
  v1::EnlistResponse response;
  v1::EpochAborted* aborted = response.mutable_epoch_aborted();
  aborted->set_replica(static_cast<uint32_t>(notice.replica.value()));
  aborted->set_epoch(notice.epoch.value());
  SetFailure(notice.reason, aborted);
  Write(std::move(response));
}

void LeaseWriter::OnMayLeave(const std::string& message) {
  v1::EnlistResponse response;
  response.mutable_may_leave()->set_message(message);
  Write(std::move(response));
}

void LeaseWriter::Write(v1::EnlistResponse response) {
  absl::MutexLock lock(&mu_);
  if (stream_ == nullptr) return;
  queue_.push_back(std::move(response));
  WriteNext();
}

void LeaseWriter::WriteNext() {
  if (stream_ == nullptr || !welcomed_ || writing_ || queue_.empty()) return;
  writing_ = true;
  stream_->StartWrite(&queue_.front());
}

}  // namespace muster
