"""How plain values become messages, and messages plain values."""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from muster.errors import from_status
from muster.values import (
    Capacity, Event, Fork, Model, Output, ParallelConfig, RankLedger, ReplicaStatus, Slice,
    StepResult, Token)
from proto.muster.v1 import fleet_pb2, inference_pb2, types_pb2


def milliseconds(duration: Duration) -> float:
    return duration.seconds * 1e3 + duration.nanos / 1e6


def seconds(time: Timestamp) -> float:
    """Since 1970."""
    return time.seconds + time.nanos / 1e9


def config_to_wire(config: ParallelConfig) -> types_pb2.ParallelConfig:
    return types_pb2.ParallelConfig(
        tp=config.tp, cp=config.cp, pp=config.pp, replicas=config.replicas)


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
            for ledger in status.ledgers),
        leader_incarnation=topology.ranks[0].incarnation if topology.ranks else 0)


def event_of(event: fleet_pb2.WatchEventsResponse) -> Event:
    return Event(
        sequence=event.sequence,
        kind=fleet_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_"),
        replica=event.replica if event.HasField("replica") else None,
        epoch=event.epoch,
        rank=event.rank if event.HasField("rank") else None,
        worker_id=event.worker_id,
        phase=event.phase,
        message=event.message,
        time=seconds(event.time),
        operation_id=event.operation_id)


def model_of(response: inference_pb2.GetModelResponse) -> Model:
    spec = response.model
    return Model(
        spec.name, spec.architecture, spec.dtype, spec.layers, spec.heads, spec.kv_heads,
        spec.vocabulary, spec.max_positions, spec.weight_bytes, frozenset(spec.eos_token_ids),
        response.epoch, response.max_rows_per_step, response.max_sequences_per_step,
        tuple(response.buckets), response.max_sequences, response.max_top_n,
        response.max_queued_requests, response.max_request_bytes,
        milliseconds(response.client_lease) / 1e3, response.block_tokens)


def capacity_of(capacity: inference_pb2.Capacity) -> Capacity:
    return Capacity(
        capacity.epoch, capacity.total_blocks, capacity.free_blocks, capacity.block_tokens,
        capacity.sequences, capacity.max_prompt_tokens, capacity.max_sequences,
        capacity.queued_requests)


def fork_of(response: inference_pb2.ForkSequenceResponse) -> Fork:
    return Fork(response.epoch, response.tokens, response.shared_blocks)


def forward_to_wire(
        client_id: str, request_id: str, slices: Iterable[Slice],
        expected_epoch: int | None = None) -> inference_pb2.ForwardRequest:
    return inference_pb2.ForwardRequest(
        client_id=client_id, request_id=request_id, expected_epoch=expected_epoch,
        slices=[_slice_to_wire(piece) for piece in slices])


def result_of(response: inference_pb2.ForwardResponse) -> StepResult:
    return StepResult(
        tuple(_output_of(output) for output in response.outputs), response.epoch, response.step,
        response.bucket, milliseconds(response.queue_time), milliseconds(response.relay_time),
        milliseconds(response.device_time))


def _slice_to_wire(piece: Slice) -> inference_pb2.SequenceSlice:
    message = inference_pb2.SequenceSlice(
        sequence_id=piece.sequence_id, token_ids=piece.token_ids,
        first_position=piece.first_position)
    if piece.sample:
        sampling = piece.sampling
        message.sample = True
        message.sampling.temperature = sampling.temperature
        message.sampling.top_k = sampling.top_k
        message.sampling.top_p = sampling.top_p
        message.sampling.seed = sampling.seed
    if piece.top_n:
        message.top_n = piece.top_n
    if piece.hidden_states:
        message.hidden_states.extend(piece.hidden_states)
    if piece.layers is not None:
        message.layers.begin, message.layers.end = piece.layers
    if piece.return_logits:
        message.return_logits = True
    if piece.return_hidden_states is not None:
        message.return_hidden_states = piece.return_hidden_states
    return message


def _output_of(output: inference_pb2.SliceOutput) -> Output:
    top = tuple((entry.token_id, entry.logprob) for entry in output.top)
    token = None
    if output.HasField("sampled_token"):
        token = Token(output.sampled_token, output.sampled_logprob, top)
    return Output(
        token, top, tuple(output.logits), tuple(output.hidden_states),
        from_status(output.error) if output.HasField("error") else None)
