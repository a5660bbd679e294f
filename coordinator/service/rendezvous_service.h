#ifndef MUSTER_COORDINATOR_SERVICE_RENDEZVOUS_SERVICE_H_
#define MUSTER_COORDINATOR_SERVICE_RENDEZVOUS_SERVICE_H_

#include "coordinator/rendezvous.h"
#include "proto/muster/v1/rendezvous.grpc.pb.h"

namespace muster {

// muster.v1.Rendezvous over a board. A call whose client has left stays on the board, where its
// value counts, until the board ends it. Thread-safe.
class RendezvousService : public v1::Rendezvous::CallbackService {
 public:
  // `board` outlives this and every call.
  explicit RendezvousService(RendezvousBoard& board) : board_(board) {}

  grpc::ServerUnaryReactor* AllGather(grpc::CallbackServerContext* context,
                                      const v1::AllGatherRequest* request,
                                      v1::AllGatherResponse* response) override;
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* context,
                                    const v1::PublishRequest* request,
                                    v1::PublishResponse* response) override;
  grpc::ServerUnaryReactor* Await(grpc::CallbackServerContext* context,
                                  const v1::AwaitRequest* request,
                                  v1::AwaitResponse* response) override;

 private:
  RendezvousBoard& board_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_RENDEZVOUS_SERVICE_H_
