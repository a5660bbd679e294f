"""Fleet and replicas over gRPC, with plain values in and out."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from muster.errors import MusterError, from_rpc_error
from proto.muster.v1 import (
    fleet_pb2, fleet_pb2_grpc, inference_pb2, inference_pb2_grpc, types_pb2)

_MAX_MESSAGE_BYTES = 64 << 20


@dataclass(frozen=True)
class ParallelConfig:
    """Sizes of the parallel axes; a replica has pp * cp * tp ranks."""

    tp: int = 1
    cp: int = 1
    pp: int = 1
    replicas: int = 1

    @property
    def world(self) -> int:
        """Ranks of one replica."""
        return self.tp * self.cp * self.pp


@dataclass(frozen=True)
class RankLedger:
    """Memory of one rank: bytes by tag, and its KV blocks of `block_tokens` tokens each."""

    rank: int
    bytes: dict[str, int]
    kv_blocks: int
    block_tokens: int


@dataclass(frozen=True)
class ReplicaStatus:
    """A replica as the coordinator sees it.

    Attributes:
      state: "WAITING", "FORMING", "SERVING" or "FAILED".
      epoch: of its topology; 0 before it has one.
      workers: ids in rank order.
      leader: "host:port" of rank 0; empty before there is one.
      failure: why it does not serve; empty if it does.
      phases_ms: how long each phase of forming took.
    """

    replica: int
    state: str
    epoch: int
    config: ParallelConfig
    workers: tuple[str, ...]
    leader: str
    failure: str
    phases_ms: dict[str, float]
    ledgers: tuple[RankLedger, ...]


@dataclass(frozen=True)
class Event:
    """Something that happened to the fleet; fields that do not apply are None or empty."""

    sequence: int
    kind: str
    replica: int | None
    epoch: int
    rank: int | None
    worker_id: str
    phase: str
    message: str


@dataclass(frozen=True)
class Model:
    """What a replica runs, and how much of it fits into a step."""

    name: str
    architecture: str
    dtype: str
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    max_positions: int
    weight_bytes: int
    eos_token_ids: frozenset[int]
    epoch: int
    max_rows_per_step: int
    max_sequences_per_step: int
    buckets: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How to choose a token; temperature 0 is greedy. Random numbers depend on seed and position."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Slice:
    """New tokens of one sequence, from position `first_position` on."""

    sequence_id: str
    token_ids: Sequence[int]
    first_position: int
    sample: bool = False
    top_n: int = 0
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Token:
    """A sampled token; log-probabilities are natural and of the unmodified distribution."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class StepResult:
    """What one step gave: a token per slice (None where none was asked for), and its times."""

    tokens: tuple[Token | None, ...]
    epoch: int
    step: int
    bucket: int
    queue_ms: float
    relay_ms: float
    device_ms: float


@dataclass(frozen=True)
class Capacity:
    """KV blocks of a replica, over all its cp ranks."""

    epoch: int
    total_blocks: int
    free_blocks: int
    block_tokens: int
    sequences: int
    max_prompt_tokens: int


class Fleet:
    """Calls of a coordinator. Every failed call raises MusterError. Thread-safe."""

    def __init__(self, address: str, timeout: float = 10.0):
        self._address = address
        self._timeout = timeout
        self._channel = _connect(address)
        self._stub = fleet_pb2_grpc.FleetStub(self._channel)

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def replicas(self) -> list[ReplicaStatus]:
        with _errors_of(self._address):
            response = self._stub.GetTopology(
                fleet_pb2.GetTopologyRequest(), timeout=self._timeout)
        return [_replica(replica) for replica in response.replicas]

    def plan(self, config: ParallelConfig) -> list[list[str]]:
        """The workers, in rank order, of each replica of a plan; changes nothing."""
        request = fleet_pb2.PlanTopologyRequest(config=types_pb2.ParallelConfig(
            tp=config.tp, cp=config.cp, pp=config.pp, replicas=config.replicas))
        with _errors_of(self._address):
            response = self._stub.PlanTopology(request, timeout=self._timeout)
        return [[rank.worker_id for rank in topology.ranks] for topology in response.topologies]

    def events(self, from_sequence: int = 0, follow: bool = False,
               timeout: float | None = None) -> Iterator[Event]:
        """Events kept by the coordinator; with `follow` it goes on as they happen.

        Args:
          from_sequence: the first wanted; 0 means the oldest kept.
          follow: wait for further ones.
          timeout: seconds after which following ends with a MusterError; None: never.
        """
        request = fleet_pb2.WatchEventsRequest(from_sequence=from_sequence, no_follow=not follow)
        with _errors_of(self._address):
            stream = self._stub.WatchEvents(
                request, timeout=timeout if follow else self._timeout)
            try:
                for event in stream:
                    yield _event(event)
            finally:
                stream.cancel()

    def replica(self, index: int = 0) -> "Replica":
        """Connects to the leader of a replica that serves."""
        statuses = {status.replica: status for status in self.replicas()}
        status = statuses.get(index)
        if status is None:
            raise MusterError(f"there is no replica {index}: the fleet has {len(statuses)}",
                              "NOT_FOUND")
        if status.state != "SERVING":
            why = f": {status.failure}" if status.failure else ""
            raise MusterError(f"replica {index} is {status.state} and does not serve{why}",
                              "UNAVAILABLE", retriable=True)
        return Replica(status.leader)


class Replica:
    """Calls of a replica's leader, as one client with sequences of its own. Thread-safe.

    Every failed call raises MusterError.
    """

    def __init__(self, address: str, client_id: str | None = None, timeout: float = 120.0):
        self._address = address
        self._client_id = client_id or f"python-{os.getpid()}-{secrets.token_hex(4)}"
        self._timeout = timeout
        self._channel = _connect(address)
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)

    def __enter__(self) -> "Replica":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def model(self) -> Model:
        with _errors_of(self._address):
            response = self._stub.GetModel(inference_pb2.GetModelRequest(), timeout=self._timeout)
        return _model(response)

    def capacity(self) -> Capacity:
        with _errors_of(self._address):
            response = self._stub.GetCapacity(
                inference_pb2.GetCapacityRequest(), timeout=self._timeout)
        return Capacity(
            response.epoch, response.total_blocks, response.free_blocks, response.block_tokens,
            response.sequences, response.max_prompt_tokens)

    def forward(self, slices: Iterable[Slice], expected_epoch: int | None = None) -> StepResult:
        """Runs one batch; a refused one has changed nothing.

        Args:
          slices: of different sequences, prefill chunks and decode tokens mixed.
          expected_epoch: refuse to run in another epoch, whose KV cache is another one.
        """
        request = inference_pb2.ForwardRequest(
            client_id=self._client_id, slices=[_wire_slice(piece) for piece in slices],
            expected_epoch=expected_epoch)
        with _errors_of(self._address):
            response = self._stub.Forward(request, timeout=self._timeout)
        return StepResult(
            tuple(_token(output) for output in response.outputs), response.epoch, response.step,
            response.bucket, _ms(response.queue_time), _ms(response.relay_time),
            _ms(response.device_time))

    def free(self, *sequence_ids: str) -> int:
        """Gives the KV blocks of sequences back; returns how many of them were held."""
        request = inference_pb2.FreeSequencesRequest(
            client_id=self._client_id, sequence_ids=sequence_ids)
        with _errors_of(self._address):
            return self._stub.FreeSequences(request, timeout=self._timeout).freed

    def generate(self, prompt: Sequence[int], max_tokens: int, sampling: Sampling = Sampling(),
                 top_n: int = 0, chunk: int | None = None) -> Iterator[Token]:
        """Yields tokens, the end token included, and frees the sequence when it ends.

        Args:
          prompt: token ids, at least one.
          max_tokens: how many to generate at most.
          sampling: how tokens are chosen.
          top_n: how many most likely tokens to return with each, 0 to 64.
          chunk: prompt tokens per step; by default as many as a step can hold.
        """
        model = self.model()
        rows = min(chunk or model.max_rows_per_step, model.max_rows_per_step)
        sequence = f"generate-{secrets.token_hex(8)}"
        epoch, position, pending = None, 0, list(prompt)
        try:
            for _ in range(max_tokens):
                # The last chunk samples; an empty prompt is for the leader to refuse.
                while True:
                    piece, pending = pending[:rows], pending[rows:]
                    result = self.forward([Slice(
                        sequence, piece, position, sample=not pending,
                        top_n=0 if pending else top_n, sampling=sampling)], epoch)
                    epoch, position = result.epoch, position + len(piece)
                    if not pending:
                        break
                token = result.tokens[0]
                yield token
                if token.id in model.eos_token_ids:
                    return
                pending = [token.id]
        finally:
            self._abandon(sequence)

    def _abandon(self, sequence: str) -> None:
        """Frees a sequence whose end must not hide why it ended."""
        try:
            self._stub.FreeSequences(
                inference_pb2.FreeSequencesRequest(
                    client_id=self._client_id, sequence_ids=[sequence]), timeout=1.0)
        except (grpc.RpcError, ValueError):  # ValueError: the channel is closed.
            pass


def _connect(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=[
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        # A proxy of the environment is meant for the internet, not for a fleet.
        ("grpc.enable_http_proxy", 0),
    ])


@contextmanager
def _errors_of(address: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, address) from None


def _ms(duration) -> float:
    return duration.seconds * 1e3 + duration.nanos / 1e6


def _config(config: types_pb2.ParallelConfig) -> ParallelConfig:
    return ParallelConfig(config.tp, config.cp, config.pp, config.replicas)


def _replica(status: fleet_pb2.ReplicaStatus) -> ReplicaStatus:
    topology = status.topology
    return ReplicaStatus(
        replica=status.replica,
        state=fleet_pb2.ReplicaState.Name(status.state).removeprefix("REPLICA_STATE_"),
        epoch=topology.epoch,
        config=_config(topology.config),
        workers=tuple(rank.worker_id for rank in topology.ranks),
        leader=topology.ranks[0].address if topology.ranks else "",
        failure=status.failure.message,
        phases_ms={phase.phase: _ms(phase.duration) for phase in status.phases},
        ledgers=tuple(
            RankLedger(
                ledger.rank, {entry.tag: entry.bytes for entry in ledger.entries},
                ledger.kv_blocks, ledger.block_tokens)
            for ledger in status.ledgers))


def _event(event: fleet_pb2.WatchEventsResponse) -> Event:
    return Event(
        sequence=event.sequence,
        kind=fleet_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_"),
        replica=event.replica if event.HasField("replica") else None,
        epoch=event.epoch,
        rank=event.rank if event.HasField("rank") else None,
        worker_id=event.worker_id,
        phase=event.phase,
        message=event.message)


def _model(response: inference_pb2.GetModelResponse) -> Model:
    spec = response.model
    return Model(
        spec.name, spec.architecture, spec.dtype, spec.layers, spec.heads, spec.kv_heads,
        spec.vocabulary, spec.max_positions, spec.weight_bytes, frozenset(spec.eos_token_ids),
        response.epoch, response.max_rows_per_step, response.max_sequences_per_step,
        tuple(response.buckets))


def _wire_slice(piece: Slice) -> inference_pb2.SequenceSlice:
    sampling = piece.sampling
    return inference_pb2.SequenceSlice(
        sequence_id=piece.sequence_id, token_ids=piece.token_ids,
        first_position=piece.first_position, sample=piece.sample, top_n=piece.top_n,
        sampling=inference_pb2.SamplingParameters(
            temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            seed=sampling.seed))


def _token(output: inference_pb2.SliceOutput) -> Token | None:
    if not output.HasField("sampled_token"):
        return None
    return Token(
        output.sampled_token, output.sampled_logprob,
        tuple((entry.token_id, entry.logprob) for entry in output.top))
