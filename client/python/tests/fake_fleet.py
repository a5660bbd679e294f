"""A coordinator and a leader in one small gRPC server, for tests of the client."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
from fake_operations import FakeOperations
from proto.google.rpc import status_pb2
from proto.muster.v1 import (
    error_pb2, fleet_pb2, fleet_pb2_grpc, inference_pb2, inference_pb2_grpc)

VOCABULARY = 100
EOS = 9
MAX_ROWS = 4
BLOCK_TOKENS = 4


class Refused(Exception):
    """What a call is answered with instead of a response."""

    def __init__(self, code: grpc.StatusCode, message: str, reason: str, **detail):
        super().__init__(message)
        self.code = code
        self.status = status_pb2.Status(code=code.value[0], message=message)
        self.status.details.add().Pack(error_pb2.ErrorDetail(
            reason=error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"), **detail))

    def end(self, context: grpc.ServicerContext) -> None:
        """Ends a call as a daemon does: with google.rpc.Status in the trailing metadata."""
        context.set_trailing_metadata(
            (("grpc-status-details-bin", self.status.SerializeToString()),))
        context.abort(self.code, self.status.message)


@dataclass
class Held:
    """A sequence: its tokens, and how many of its blocks belong to another one as well."""

    tokens: list[int] = field(default_factory=list)
    shared: int = 0

    @property
    def blocks(self) -> int:
        return -(-len(self.tokens) // BLOCK_TOKENS) - self.shared


class FakeFleet(
        FakeOperations, fleet_pb2_grpc.FleetServicer, inference_pb2_grpc.InferenceServicer):
    """One replica, whose next token is the sum of all tokens of the sequence modulo 10.

    Attributes:
      address: where it listens.
      forwards: every ForwardRequest that ran, retries not among them.
      retries: how many requests were answered from the record.
      forks: every ForkSequenceRequest that came.
      sequences: what is held by (client id, sequence id).
      state, epoch: of the replica.
      leader, incarnation: what the topology names as its leader, and that one's process.
      cp: of the replica.
      faults: called with each ForwardRequest before it runs; may raise Refused.
      lose_answers: how many answers of ForwardStream are lost with their connection, though run.
    """

    def __init__(self, blocks: int = 1000, rows: int = MAX_ROWS, slices: int = 2,
                 lease_ms: int = 0, address: str = "127.0.0.1:0"):
        self.forwards: list[inference_pb2.ForwardRequest] = []
        self.retries = 0
        self.forks: list[inference_pb2.ForkSequenceRequest] = []
        self.sequences: dict[tuple[str, str], Held] = {}
        self.state = fleet_pb2.REPLICA_STATE_SERVING
        self.epoch, self.cp, self.incarnation = 3, 2, 7
        self.faults: Callable[[inference_pb2.ForwardRequest], None] = lambda request: None
        self.lose_answers = 0
        self.renewals: list[str] = []
        FakeOperations.__init__(self)
        self._blocks, self._rows, self._slices, self._lease_ms = blocks, rows, slices, lease_ms
        self._recorded: dict[tuple[str, str], inference_pb2.ForwardResponse] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._server = grpc.server(
            futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        fleet_pb2_grpc.add_FleetServicer_to_server(self, self._server)
        inference_pb2_grpc.add_InferenceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(address)
        self.address = self.leader = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        with self.change():
            self._stopped = True
        self._server.stop(None).wait()

    def change(self) -> threading.Condition:
        """To be entered by whoever changes something: those who watch are told afterwards."""
        fake = self

        class Change:
            def __enter__(self):
                fake._changed.acquire()

            def __exit__(self, *_):
                fake._changed.notify_all()
                fake._changed.release()

        return Change()

    def begin_epoch(self, keep: bool) -> None:
        """The replica changes its epoch, and keeps its sequences or loses them."""
        with self.change():
            self.epoch += 1
            if not keep:
                self.sequences.clear()

    @property
    def free_blocks(self) -> int:
        return self._blocks - sum(held.blocks for held in self.sequences.values())

    # --- Fleet.

    def _replicas(self) -> list[fleet_pb2.ReplicaStatus]:
        replica = fleet_pb2.ReplicaStatus(replica=0, state=self.state)
        replica.failure.message = (
            "" if self.state == fleet_pb2.REPLICA_STATE_SERVING else "rank 1 is lost")
        topology = replica.topology
        topology.epoch = self.epoch
        topology.config.tp, topology.config.cp = 1, self.cp
        topology.config.pp = topology.config.replicas = 1
        for rank in range(self.cp):
            topology.ranks.add(rank=rank, worker_id=f"w{rank}", address=self.leader,
                               incarnation=self.incarnation)
        phase = replica.phases.add(phase="load")
        phase.duration.nanos = 1_500_000
        ledger = replica.ledgers.add(rank=0, kv_blocks=7, block_tokens=BLOCK_TOKENS)
        ledger.entries.add(tag="weights", bytes=123)
        return [replica]

    def GetTopology(self, request, context):
        with self._changed:
            return fleet_pb2.GetTopologyResponse(replicas=self._replicas(), term=1)

    def WatchTopology(self, request, context):
        for _ in self._changes(
                context, lambda: (self.state, self.epoch, self.leader, self.incarnation)):
            yield fleet_pb2.WatchTopologyResponse(replicas=self._replicas(), term=1)

    def PlanTopology(self, request, context):
        if request.config.tp == 2:
            Refused(grpc.StatusCode.INVALID_ARGUMENT, "cannot plan tp=2", "PLAN_REFUSED").end(
                context)
        response = fleet_pb2.PlanTopologyResponse()
        topology = response.topologies.add()
        for rank in range(request.config.tp * request.config.cp):
            topology.ranks.add(rank=rank, worker_id=f"w{rank}")
        if request.config.cp not in (0, 1, self.cp):
            self.describe_change(request.config.cp, response.changes.add())
        return response

    def WatchEvents(self, request, context):
        if not request.no_follow:
            yield from self.operation_events(context)
            return
        for sequence in range(max(1, request.from_sequence), 4):
            yield fleet_pb2.WatchEventsResponse(
                sequence=sequence, kind=fleet_pb2.EVENT_KIND_WORKER_LOST, worker_id="w1",
                replica=0, rank=1, epoch=3, phase="warmup/open", message="rank 1 is lost")

    # --- Inference.

    def GetModel(self, request, context):
        response = inference_pb2.GetModelResponse(
            epoch=self.epoch, max_rows_per_step=self._rows, max_sequences_per_step=self._slices,
            buckets=[2, 1], max_sequences=64, max_top_n=64, block_tokens=BLOCK_TOKENS)
        response.client_lease.FromMilliseconds(self._lease_ms)
        response.model.name = "fake"
        response.model.vocabulary = VOCABULARY
        response.model.max_positions = 400
        response.model.eos_token_ids.append(EOS)
        return response

    def _capacity(self) -> inference_pb2.Capacity:
        return inference_pb2.Capacity(
            epoch=self.epoch, total_blocks=self._blocks, free_blocks=self.free_blocks,
            block_tokens=BLOCK_TOKENS, sequences=len(self.sequences), max_sequences=64,
            max_prompt_tokens=self.free_blocks * BLOCK_TOKENS)

    def GetCapacity(self, request, context):
        with self.change():
            self.renewals.append(request.client_id)
            return inference_pb2.GetCapacityResponse(capacity=self._capacity())

    def WatchCapacity(self, request, context):
        for _ in self._changes(context, lambda: self.free_blocks):
            yield inference_pb2.WatchCapacityResponse(capacity=self._capacity())

    def Forward(self, request, context):
        try:
            return self._run(request)
        except Refused as refusal:
            refusal.end(context)

    def ForwardStream(self, requests, context):
        for request in requests:
            answer = inference_pb2.ForwardStreamResponse(request_id=request.request_id)
            try:
                answer.response.CopyFrom(self._run(request))
            except Refused as refusal:
                answer.error.CopyFrom(refusal.status)
            if self.lose_answers:
                self.lose_answers -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
            yield answer

    def ForkSequence(self, request, context):
        with self.change():
            self.forks.append(request)
            source = self.sequences.get((request.client_id, request.sequence_id))
            if source is None:
                Refused(grpc.StatusCode.FAILED_PRECONDITION, "no such sequence",
                        "UNKNOWN_SEQUENCE").end(context)
            name = request.client_id, request.new_sequence_id
            if name in self.sequences:
                Refused(grpc.StatusCode.ALREADY_EXISTS, "it exists", "SEQUENCE_EXISTS").end(context)
            tokens = request.tokens if request.HasField("tokens") else len(source.tokens)
            if tokens > len(source.tokens):
                Refused(grpc.StatusCode.OUT_OF_RANGE, "too many", "POSITION_MISMATCH").end(context)
            shared = tokens // BLOCK_TOKENS
            self.sequences[name] = Held(source.tokens[:tokens], shared)
            return inference_pb2.ForkSequenceResponse(
                epoch=self.epoch, tokens=tokens, shared_blocks=shared)

    def FreeSequences(self, request, context):
        with self.change():
            names = [name for name in self.sequences if name[0] == request.client_id and (
                request.all or name[1] in request.sequence_ids)]
            for name in names:
                del self.sequences[name]
            return inference_pb2.FreeSequencesResponse(freed=len(names))

    # --- Steps.

    def _run(self, request: inference_pb2.ForwardRequest) -> inference_pb2.ForwardResponse:
        with self.change():
            key = request.client_id, request.request_id
            if request.request_id and key in self._recorded:
                self.retries += 1
                return self._recorded[key]
            self.faults(request)
            if request.HasField("expected_epoch") and request.expected_epoch != self.epoch:
                raise Refused(
                    grpc.StatusCode.FAILED_PRECONDITION, f"the epoch is {self.epoch}",
                    "STALE_EPOCH", epoch=self.epoch, retriable=True)
            for piece in request.slices:
                self._check(request.client_id, piece)
            self._check_room(request)
            self.forwards.append(request)
            response = inference_pb2.ForwardResponse(
                epoch=self.epoch, step=len(self.forwards), bucket=1,
                request_id=request.request_id)
            response.device_time.FromMicroseconds(250)
            for piece in request.slices:
                self._answer(request.client_id, piece, response.outputs.add())
            self._recorded[key] = response
            return response

    def _answer(self, client: str, piece, output) -> None:
        tokens = self.sequences.setdefault((client, piece.sequence_id), Held()).tokens
        tokens.extend(piece.token_ids)
        output.sequence_id = piece.sequence_id
        if piece.sample:
            output.sampled_token = sum(tokens) % 10
            output.sampled_logprob = -0.5
        for rank in range(piece.top_n):
            output.top.add(token_id=rank, logprob=-float(rank))

    def _check(self, client: str, piece) -> None:
        if not piece.token_ids:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, "the slice is empty", "INVALID_REQUEST")
        if wrong := [token for token in piece.token_ids if token >= VOCABULARY]:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"token {wrong[0]} is outside the vocabulary of {VOCABULARY}", "INVALID_REQUEST",
                epoch=3, ranks=[0, 1], workers=["w0", "w1"], culprit_count=2, phase="serve",
                retriable=True, kv_written=True)
        held = self.sequences.get((client, piece.sequence_id), Held())
        if piece.first_position != len(held.tokens):
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"position {piece.first_position} does not continue {len(held.tokens)} tokens",
                "POSITION_MISMATCH")

    def _check_room(self, request) -> None:
        need = 0
        for piece in request.slices:
            length = piece.first_position
            need += -(-(length + len(piece.token_ids)) // BLOCK_TOKENS) - -(-length // BLOCK_TOKENS)
        if need > self.free_blocks:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the step needs {need} KV blocks; {self.free_blocks} are free", "KV_CAPACITY",
                retriable=True)

    def _changes(self, context, state: Callable[[], object]) -> Iterator[None]:
        """Yields at once, and whenever the state is another one, until the caller leaves."""
        told: object = self
        context.add_callback(self._wake)
        while context.is_active() and not self._stopped:
            with self._changed:
                if state() == told:
                    self._changed.wait()
                    continue
                told = state()
            yield

    def _wake(self) -> None:
        with self.change():
            pass
