"""What the daemons say and are asked, as plain values, and how they become messages and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from proto.muster.v1 import fleet_pb2, inference_pb2, types_pb2


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


def milliseconds(duration) -> float:
    return duration.seconds * 1e3 + duration.nanos / 1e6


def config_of(config: types_pb2.ParallelConfig) -> ParallelConfig:
    return ParallelConfig(config.tp, config.cp, config.pp, config.replicas)


def replica_of(status: fleet_pb2.ReplicaStatus) -> ReplicaStatus:
    topology = status.topology
    return ReplicaStatus(
        replica=status.replica,
        state=fleet_pb2.ReplicaState.Name(status.state).removeprefix("REPLICA_STATE_"),
        epoch=topology.epoch,
        config=config_of(topology.config),
        workers=tuple(rank.worker_id for rank in topology.ranks),
        leader=topology.ranks[0].address if topology.ranks else "",
        failure=status.failure.message,
        phases_ms={phase.phase: milliseconds(phase.duration) for phase in status.phases},
        ledgers=tuple(
            RankLedger(
                ledger.rank, {entry.tag: entry.bytes for entry in ledger.entries},
                ledger.kv_blocks, ledger.block_tokens)
            for ledger in status.ledgers))


def event_of(event: fleet_pb2.WatchEventsResponse) -> Event:
    return Event(
        sequence=event.sequence,
        kind=fleet_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_"),
        replica=event.replica if event.HasField("replica") else None,
        epoch=event.epoch,
        rank=event.rank if event.HasField("rank") else None,
        worker_id=event.worker_id,
        phase=event.phase,
        message=event.message)


def model_of(response: inference_pb2.GetModelResponse) -> Model:
    spec = response.model
    return Model(
        spec.name, spec.architecture, spec.dtype, spec.layers, spec.heads, spec.kv_heads,
        spec.vocabulary, spec.max_positions, spec.weight_bytes, frozenset(spec.eos_token_ids),
        response.epoch, response.max_rows_per_step, response.max_sequences_per_step,
        tuple(response.buckets))


def slice_to_wire(piece: Slice) -> inference_pb2.SequenceSlice:
    sampling = piece.sampling
    return inference_pb2.SequenceSlice(
        sequence_id=piece.sequence_id, token_ids=piece.token_ids,
        first_position=piece.first_position, sample=piece.sample, top_n=piece.top_n,
        sampling=inference_pb2.SamplingParameters(
            temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            seed=sampling.seed))


def token_of(output: inference_pb2.SliceOutput) -> Token | None:
    if not output.HasField("sampled_token"):
        return None
    return Token(
        output.sampled_token, output.sampled_logprob,
        tuple((entry.token_id, entry.logprob) for entry in output.top))
