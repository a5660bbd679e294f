"""What the daemons say and are asked, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from muster.errors import MusterError


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
      leader_incarnation: random number of its process; 0 before there is one.
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
    leader_incarnation: int = 0


@dataclass(frozen=True)
class Event:
    """Something that happened to the fleet; fields that do not apply are None or empty.

    Attributes:
      time: seconds since 1970, by the coordinator's clock.
      operation_id: of the operation concerned.
    """

    sequence: int
    kind: str
    replica: int | None
    epoch: int
    rank: int | None
    worker_id: str
    phase: str
    message: str
    time: float = 0.0
    operation_id: str = ""


@dataclass(frozen=True)
class RankChange:
    """What a change of shape takes of one worker.

    Attributes:
      role: "SURVIVOR" (holds the same rank before and after), "RECRUIT" or "LEAVER".
      rank: of a leaver the one that it leaves.
      weight_bytes_loaded, weight_bytes_shared: read from the checkpoint, and used by both epochs.
      peak_bytes: of the device while both epochs are held; it has `total_bytes`.
      kv_blocks_peak: held at most on the way; there is room for `kv_blocks_total`.
    """

    worker_id: str
    role: str
    rank: int
    weight_bytes_loaded: int
    weight_bytes_shared: int
    peak_bytes: int
    total_bytes: int
    kv_blocks_peak: int
    kv_blocks_total: int


@dataclass(frozen=True)
class BlockFlow:
    """KV blocks that go from a rank of the topology before to one of that after."""

    from_rank: int
    to_rank: int
    blocks: int
    bytes: int


@dataclass(frozen=True)
class ReplicaChange:
    """How a replica would get from one topology to another.

    Attributes:
      kv_blocks_moved, kv_blocks_kept: each counted once, however many tp ranks hold parts of it.
      capacity_tokens_before, capacity_tokens_after: that all sequences together can have.
      tokens_to_rebuild: to be computed again, where KV cannot be moved.
      lost_sequences: that can be neither moved nor computed again, the first of `lost_count`.
      predicted_prepare_ms, predicted_pause_ms: while it serves, and while it does not.
    """

    replica: int
    from_epoch: int
    to_epoch: int
    from_config: ParallelConfig
    to_config: ParallelConfig
    ranks: tuple[RankChange, ...]
    flows: tuple[BlockFlow, ...]
    kv_blocks_moved: int
    kv_blocks_kept: int
    kv_bytes_moved: int
    capacity_tokens_before: int
    capacity_tokens_after: int
    tokens_to_rebuild: int
    lost_sequences: tuple[str, ...]
    lost_count: int
    predicted_prepare_ms: float
    predicted_pause_ms: float


@dataclass(frozen=True)
class Plan:
    """What a configuration would look like.

    Attributes:
      workers: of each replica, ids in rank order.
      changes: what it takes to get there, for each replica that serves and would change.
    """

    workers: tuple[tuple[str, ...], ...]
    changes: tuple[ReplicaChange, ...] = ()


@dataclass(frozen=True)
class RankProgress:
    """How far a rank of a new epoch is: `done` of `total` units of its phase; 0 is unknown."""

    rank: int
    worker_id: str
    phase: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class ReplicaResize:
    """A replica's part in an operation; figures are 0 until it has taken effect.

    Attributes:
      stage: "WAITING", "PREPARING", "ACTIVATING", "RELEASING", "DONE", "ROLLED_BACK" or "FAILED".
      ranks: of the new epoch, while it is prepared and activated.
      pause_ms: in which no step ran.
      kv_blocks_moved, kv_blocks_kept: that went to another rank, and that stayed.
      copy_ms: in which blocks were copied, by the busiest rank.
      copy_bytes_per_second: of a plain copy on the leader's device, measured beside it.
    """

    replica: int
    stage: str
    from_epoch: int
    to_epoch: int
    from_config: ParallelConfig
    to_config: ParallelConfig
    ranks: tuple[RankProgress, ...] = ()
    prepare_ms: float = 0.0
    pause_ms: float = 0.0
    kv_blocks_moved: int = 0
    kv_blocks_kept: int = 0
    kv_bytes_moved: int = 0
    kv_bytes_in_pause: int = 0
    copy_ms: float = 0.0
    copy_bytes_per_second: float = 0.0
    sequences: int = 0
    tokens_rebuilt: int = 0
    sequences_dropped: int = 0

    @property
    def in_force(self) -> bool:
        """Whether the new epoch serves."""
        return self.stage in ("RELEASING", "DONE")


@dataclass(frozen=True)
class Operation:
    """A change of the fleet's shape, running or ended.

    Attributes:
      id: the request id of the call that began it.
      kind: "SCALE_CONTEXT_PARALLEL", "APPLY_TOPOLOGY" or "DRAIN_WORKER".
      state: "RUNNING", "DONE", "ROLLED_BACK" or "FAILED".
      failure: why it did not take effect.
      started, ended: seconds since 1970, by the coordinator's clock; `ended` is None while it runs.
      no_change: whether nothing had to be changed.
    """

    id: str
    kind: str
    state: str
    summary: str
    replicas: tuple[ReplicaResize, ...]
    failure: MusterError | None
    started: float
    ended: float | None
    no_change: bool = False


@dataclass(frozen=True)
class Model:
    """What a replica runs, and how much of it fits into a step.

    Attributes:
      max_positions: longest context in tokens.
      max_rows_per_step: new tokens of all slices of one request.
      buckets: rows of the captured graphs, largest first.
      max_sequences: how many can be held at once, by all clients.
      max_queued_requests: how many requests may wait for the engine.
      client_lease_s: how long a client may be silent before it loses its sequences; 0: unknown.
      block_tokens: tokens per KV block.
    """

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
    buckets: tuple[int, ...] = ()
    max_sequences: int = 0
    max_top_n: int = 0
    max_queued_requests: int = 0
    max_request_bytes: int = 0
    client_lease_s: float = 0.0
    block_tokens: int = 0


@dataclass(frozen=True)
class Sampling:
    """How to choose a token; temperature 0 is greedy. Random numbers depend on seed and position."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Slice:
    """New tokens of one sequence, from position `first_position` on.

    Attributes:
      token_ids: at least one, or `hidden_states` instead.
      first_position: the sequence's length so far.
      sample: whether to choose a token after the last one.
      top_n: how many most likely tokens to return after the last one.
      hidden_states: what enters the first layer of `layers`, [tokens, hidden], row by row.
      layers: which layers to run, [begin, end); None: all.
      return_logits: whether to return the logits after the last token.
      return_hidden_states: return what enters this layer, for all tokens of the slice.
    """

    sequence_id: str
    token_ids: Sequence[int]
    first_position: int
    sample: bool = False
    top_n: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    hidden_states: Sequence[float] = ()
    layers: tuple[int, int] | None = None
    return_logits: bool = False
    return_hidden_states: int | None = None


@dataclass(frozen=True)
class Token:
    """A sampled token; log-probabilities are natural and of the unmodified distribution."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Output:
    """What a slice gave; what it did not ask for is None or empty.

    Attributes:
      top: the most likely tokens and their log-probabilities.
      logits: [vocabulary].
      hidden_states: [tokens of the slice, hidden], row by row.
      error: why there is no answer although the slice ran.
    """

    token: Token | None = None
    top: tuple[tuple[int, float], ...] = ()
    logits: tuple[float, ...] = ()
    hidden_states: tuple[float, ...] = ()
    error: MusterError | None = None


@dataclass(frozen=True)
class StepResult:
    """What one request gave: an output per slice, and its times.

    Attributes:
      step: number of the step that ran last for it, from 1 within the epoch.
      bucket: rows of the step, padding included.
      queue_ms: waiting for the engine.
      relay_ms: stamping the steps and handing them to the followers.
      device_ms: on the device.
    """

    outputs: tuple[Output, ...]
    epoch: int
    step: int
    bucket: int
    queue_ms: float
    relay_ms: float
    device_ms: float

    @property
    def tokens(self) -> tuple[Token | None, ...]:
        """A token per slice, None where none was asked for."""
        return tuple(output.token for output in self.outputs)


@dataclass(frozen=True)
class Fork:
    """A sequence that began as another: its length, and the KV blocks that the two share."""

    epoch: int
    tokens: int
    shared_blocks: int


@dataclass(frozen=True)
class Capacity:
    """KV blocks of a replica, over all its cp ranks, and what else bounds it.

    Attributes:
      max_prompt_tokens: longest prompt of a new sequence that fits now.
      max_sequences: how many sequences can be held at once; 0: unknown.
      queued_requests: how many wait for the engine.
    """

    epoch: int
    total_blocks: int
    free_blocks: int
    block_tokens: int
    sequences: int
    max_prompt_tokens: int
    max_sequences: int = 0
    queued_requests: int = 0
