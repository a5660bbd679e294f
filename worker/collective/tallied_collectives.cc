#include "worker/collective/tallied_collectives.h"

#include <utility>

namespace muster {
namespace {

uint64_t Bytes(int rows, int width, DType dtype) {
  return static_cast<uint64_t>(rows) * static_cast<uint64_t>(width) * SizeOf(dtype);
}

class TalliedWorkspace final : public Workspace {
 public:
  TalliedWorkspace(std::unique_ptr<Workspace> workspace, CollectiveTally& tally)
      : workspace_(std::move(workspace)), tally_(tally) {}

  const Group& group() const override { return workspace_->group(); }
  absl::Status Enqueue(Stream& stream, const FusedAllReduceRmsNorm& op) override {
    tally_.Add(CollectiveOp::kAllReduceRmsNorm, Bytes(op.tokens, op.hidden, op.dtype));
    return workspace_->Enqueue(stream, op);
  }
  absl::Status Enqueue(Stream& stream, const CpCombine& op) override {
    tally_.Add(CollectiveOp::kCpCombine, Bytes(op.tokens, op.heads * op.head_dim, op.dtype));
    return workspace_->Enqueue(stream, op);
  }
  void Abort(const absl::Status& reason) override { workspace_->Abort(reason); }
  size_t bytes() const override { return workspace_->bytes(); }
  uint64_t layout_digest() const override { return workspace_->layout_digest(); }

 private:
  const std::unique_ptr<Workspace> workspace_;
  CollectiveTally& tally_;
};

class TalliedCommunicator final : public Communicator {
 public:
  TalliedCommunicator(std::unique_ptr<Communicator> communicator, CollectiveTally& tally)
      : communicator_(std::move(communicator)), tally_(tally) {}

  const Group& group() const override { return communicator_->group(); }
  absl::Status AllReduce(Stream& stream, void* data, size_t count, DType dtype) override {
    tally_.Add(CollectiveOp::kAllReduce, count * SizeOf(dtype));
    return communicator_->AllReduce(stream, data, count, dtype);
  }
  absl::Status AllGather(Stream& stream, const void* send, void* receive, size_t bytes) override {
    tally_.Add(CollectiveOp::kAllGather, bytes);
    return communicator_->AllGather(stream, send, receive, bytes);
  }
  absl::Status ReduceScatter(Stream& stream, const void* send, void* receive, size_t count,
                             DType dtype) override {
    const auto ranks = static_cast<size_t>(group().size());
    tally_.Add(CollectiveOp::kReduceScatter, count * ranks * SizeOf(dtype));
    return communicator_->ReduceScatter(stream, send, receive, count, dtype);
  }
  absl::Status Broadcast(Stream& stream, void* data, size_t bytes, GroupRank root) override {
    tally_.Add(CollectiveOp::kBroadcast, group().rank() == root ? bytes : 0);
    return communicator_->Broadcast(stream, data, bytes, root);
  }
  absl::Status Barrier(Stream& stream) override {
    tally_.Add(CollectiveOp::kBarrier, 0);
    return communicator_->Barrier(stream);
  }
  void Abort(const absl::Status& reason) override { communicator_->Abort(reason); }

 private:
  const std::unique_ptr<Communicator> communicator_;
  CollectiveTally& tally_;
};

}  // namespace

std::unique_ptr<Workspace> Tallied(std::unique_ptr<Workspace> workspace, CollectiveTally& tally) {
  if (workspace->group().size() == 1) return workspace;
  return std::make_unique<TalliedWorkspace>(std::move(workspace), tally);
}

std::unique_ptr<Communicator> Tallied(std::unique_ptr<Communicator> communicator,
                                      CollectiveTally& tally) {
  if (communicator->group().size() == 1) return communicator;
  return std::make_unique<TalliedCommunicator>(std::move(communicator), tally);
}

}  // namespace muster
