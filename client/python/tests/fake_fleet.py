"""A coordinator and a leader in one small gRPC server, for tests of the client."""

from concurrent import futures

import grpc
from proto.google.rpc import status_pb2
from proto.muster.v1 import (
    error_pb2, fleet_pb2, fleet_pb2_grpc, inference_pb2, inference_pb2_grpc)

VOCABULARY = 100
EOS = 9
MAX_ROWS = 4


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, **detail) -> None:
    """Ends a call as a daemon does: with google.rpc.Status in the trailing metadata."""
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_pb2.ErrorDetail(**detail))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class FakeFleet(fleet_pb2_grpc.FleetServicer, inference_pb2_grpc.InferenceServicer):
    """One replica, whose next token is the sum of all tokens of the sequence modulo 10.

    Attributes:
      address: where it listens.
      forwards: every ForwardRequest that came.
      sequences: token ids by (client id, sequence id).
      state: of the replica.
    """

    def __init__(self):
        self.forwards: list[inference_pb2.ForwardRequest] = []
        self.sequences: dict[tuple[str, str], list[int]] = {}
        self.state = fleet_pb2.REPLICA_STATE_SERVING
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        fleet_pb2_grpc.add_FleetServicer_to_server(self, self._server)
        inference_pb2_grpc.add_InferenceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def GetTopology(self, request, context):
        replica = fleet_pb2.ReplicaStatus(replica=0, state=self.state)
        replica.failure.message = (
            "" if self.state == fleet_pb2.REPLICA_STATE_SERVING else "rank 1 is lost")
        topology = replica.topology
        topology.epoch = 3
        topology.config.tp, topology.config.cp = 1, 2
        topology.config.pp = topology.config.replicas = 1
        for rank in range(2):
            topology.ranks.add(rank=rank, worker_id=f"w{rank}", address=self.address)
        phase = replica.phases.add(phase="load")
        phase.duration.nanos = 1_500_000
        ledger = replica.ledgers.add(rank=0, kv_blocks=7, block_tokens=16)
        ledger.entries.add(tag="weights", bytes=123)
        return fleet_pb2.GetTopologyResponse(replicas=[replica], term=1)

    def PlanTopology(self, request, context):
        if request.config.tp == 2:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "cannot plan tp=2",
                   reason=error_pb2.ERROR_REASON_PLAN_REFUSED)
        response = fleet_pb2.PlanTopologyResponse()
        topology = response.topologies.add()
        for rank in range(request.config.tp * request.config.cp):
            topology.ranks.add(rank=rank, worker_id=f"w{rank}")
        return response

    def WatchEvents(self, request, context):
        for sequence in range(max(1, request.from_sequence), 4):
            yield fleet_pb2.WatchEventsResponse(
                sequence=sequence, kind=fleet_pb2.EVENT_KIND_WORKER_LOST, worker_id="w1",
                replica=0, rank=1, epoch=3, phase="warmup/open", message="rank 1 is lost")

    def GetModel(self, request, context):
        response = inference_pb2.GetModelResponse(
            epoch=3, max_rows_per_step=MAX_ROWS, max_sequences_per_step=2, buckets=[2, 1])
        response.model.name = "fake"
        response.model.vocabulary = VOCABULARY
        response.model.eos_token_ids.append(EOS)
        return response

    def GetCapacity(self, request, context):
        return inference_pb2.GetCapacityResponse(capacity=inference_pb2.Capacity(
            epoch=3, total_blocks=8, free_blocks=6, block_tokens=16, sequences=1,
            max_prompt_tokens=96))

    def Forward(self, request, context):
        self.forwards.append(request)
        response = inference_pb2.ForwardResponse(epoch=3, step=len(self.forwards), bucket=1)
        response.device_time.nanos = 250_000
        for piece in request.slices:
            self._check(piece, context)
            tokens = self.sequences.setdefault((request.client_id, piece.sequence_id), [])
            tokens.extend(piece.token_ids)
            output = response.outputs.add(sequence_id=piece.sequence_id)
            if piece.sample:
                output.sampled_token = sum(tokens) % 10
                output.sampled_logprob = -0.5
            for rank in range(piece.top_n):
                output.top.add(token_id=rank, logprob=-float(rank))
        return response

    def FreeSequences(self, request, context):
        freed = [self.sequences.pop((request.client_id, name), None)
                 for name in request.sequence_ids]
        return inference_pb2.FreeSequencesResponse(freed=sum(it is not None for it in freed))

    def _check(self, piece, context) -> None:
        if not piece.token_ids:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the slice is empty",
                   reason=error_pb2.ERROR_REASON_INVALID_REQUEST)
        if wrong := [token for token in piece.token_ids if token >= VOCABULARY]:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT,
                   f"token {wrong[0]} is outside the vocabulary of {VOCABULARY}",
                   reason=error_pb2.ERROR_REASON_INVALID_REQUEST, epoch=3, ranks=[0, 1],
                   workers=["w0", "w1"], culprit_count=2, phase="serve", retriable=True,
                   kv_written=True)
