#include "worker/service/forward_stream.h"

#include <atomic>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/wire_status.h"
#include "worker/service/given_up.h"
#include "worker/service/request_log.h"
#include "worker/service/wire_inference.h"

namespace muster {
namespace {

// Requests of one stream that are read ahead of their answers; the caller's further ones stay in
// the transport.
constexpr size_t kMaxInFlight = 64;

// Bytes that a request may take in memory to be used again: a cleared message keeps them.
constexpr size_t kMostKept = size_t{1} << 20;

class ForwardStream final : public ForwardStreamReactor {
 public:
  static ForwardStream* Start(const WorkerEpochs& epochs, ClientNames names,
                              const TraceContext& trace) {
    auto stream = std::make_shared<ForwardStream>(epochs, std::move(names), trace);
    stream->self_ = stream;
    absl::MutexLock lock(&stream->mu_);
    stream->ReadNext();
    return stream.get();
  }

  ForwardStream(const WorkerEpochs& epochs, ClientNames names, const TraceContext& trace)
      : epochs_(epochs), names_(std::move(names)), trace_(trace) {}

 private:
  // A request and its answer, whose memory serves the next ones as well.
  struct Exchange {
    v1::ForwardRequest request;
    v1::ForwardStreamResponse response;
    Epoch epoch;            // that it came to; 0: none
    bool answered = false;  // under the lock
  };

  // Reactions, on threads of gRPC.
  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    Exchange* exchange;
    {
      absl::MutexLock lock(&mu_);
      if (!ok) {
        read_all_ = true;
        FinishIfDone();
        return;
      }
      // It came before the answer to the one before it had left: there will be more like it.
      if (writing_) reads_ahead_ = true;
      forwarding_ = true;
      ++unanswered_;
      exchanges_.push_back(std::move(reading_));
      exchange = exchanges_.back().get();
    }
    Forward(*exchange);
    absl::MutexLock lock(&mu_);
    forwarding_ = false;
    ReadNext();
  }
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (exchanges_.front()->request.SpaceUsedLong() <= kMostKept) {
      spare_.push_back(std::move(exchanges_.front()));
    }
    exchanges_.pop_front();
    if (!ok) return End(grpc::Status::CANCELLED);
    WriteNext();
    ReadNext();
    FinishIfDone();
  }
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_) {
    cancelled_ = true;
    absl::MutexLock lock(&mu_);
    End(grpc::Status::CANCELLED);
  }
  // Requests that are still with the engine keep it alive.
  void OnDone() override { self_.reset(); }

  void Forward(Exchange& exchange) ABSL_LOCKS_EXCLUDED(mu_) {
    const auto serving = epochs_.Serving();
    absl::Status refused = serving.status();
    exchange.epoch = refused.ok() ? (*serving)->epoch : Epoch();
    if (refused.ok())
      refused = CheckSlices(exchange.request, (*serving)->engine().options().limits);
    if (!refused.ok()) return Answer(exchange, refused);
    auto client = names_.Of(exchange.request.client_id());
    if (!client.ok()) return Answer(exchange, client.status());
    ForwardBatch batch = FromWire(exchange.request, *std::move(client));
    batch.trace = trace_;
    (*serving)->engine().Forward(
        std::move(batch),
        {.done = [self = self_, &exchange](const ForwardAnswer& it) { self->Answer(exchange, it); },
         .still_wanted = [self =
                              self_] { return self->cancelled_ ? HungUp() : absl::OkStatus(); }});
  }

  // On the engine's thread, or within Forward.
  void Answer(Exchange& exchange, const ForwardAnswer& answer) ABSL_LOCKS_EXCLUDED(mu_) {
    LogAnswer(exchange.request.request_id(), trace_, exchange.epoch, answer);
    v1::ForwardStreamResponse& response = exchange.response;
    response.set_request_id(exchange.request.request_id());
    if (answer.ok()) {
      ToWire(**answer, exchange.request, response.mutable_response());
    } else {
      *response.mutable_error() = ToRpcStatus(answer.status());
    }
    absl::MutexLock lock(&mu_);
    exchange.answered = true;
    --unanswered_;
    if (unanswered_ == 0 && reading_ != nullptr) reads_ahead_ = false;
    WriteNext();
    ReadNext();
  }

  // A caller that waits for each answer is read again only when that has been written: otherwise
  // the transport's word that it may send more goes first, in a packet of its own, and wakes the
  // caller up for nothing.
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (reading_ != nullptr || forwarding_ || exchanges_.size() >= kMaxInFlight) return;
    if (unanswered_ > 0 && !reads_ahead_) return;
    if (ended_ || read_all_) return;
    if (spare_.empty()) {
      reading_ = std::make_unique<Exchange>();
    } else {
      reading_ = std::move(spare_.back());
      spare_.pop_back();
      reading_->request.Clear();
      reading_->response.Clear();
      reading_->answered = false;
    }
    StartRead(&reading_->request);
  }
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_ || writing_ || exchanges_.empty() || !exchanges_.front()->answered) return;
    writing_ = true;
    StartWrite(&exchanges_.front()->response);
  }
  void FinishIfDone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (read_all_ && exchanges_.empty()) End(grpc::Status::OK);
  }
  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!std::exchange(ended_, true)) Finish(status);
  }

  const WorkerEpochs& epochs_;
  const ClientNames names_;
  const TraceContext trace_;
  std::atomic<bool> cancelled_{false};
  std::shared_ptr<ForwardStream> self_;  // until OnDone

  absl::Mutex mu_;
  std::unique_ptr<Exchange> reading_ ABSL_GUARDED_BY(mu_);  // gRPC's while it is there
  std::deque<std::unique_ptr<Exchange>> exchanges_ ABSL_GUARDED_BY(mu_);  // in their order
  std::vector<std::unique_ptr<Exchange>> spare_ ABSL_GUARDED_BY(mu_);
  int unanswered_ ABSL_GUARDED_BY(mu_) = 0;       // of exchanges_
  bool reads_ahead_ ABSL_GUARDED_BY(mu_) = true;  // the caller sends without waiting for answers
  bool forwarding_ ABSL_GUARDED_BY(mu_) = false;  // the last is on its way to the engine
  bool writing_ ABSL_GUARDED_BY(mu_) = false;     // the front's response is gRPC's
  bool read_all_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

ForwardStreamReactor* StartForwardStream(const WorkerEpochs& epochs, ClientNames names,
                                         const TraceContext& trace) {
  return ForwardStream::Start(epochs, std::move(names), trace);
}

}  // namespace muster
