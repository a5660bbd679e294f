"""Operations and plans: messages as plain values, and requests as messages."""

import secrets
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from muster.errors import MusterError, from_failure
from muster.messages import config_of, config_to_wire, milliseconds, seconds
from muster.values import (
    BlockFlow, Operation, ParallelConfig, Plan, RankChange, RankProgress, ReplicaChange,
    ReplicaResize)
from proto.muster.v1 import fleet_pb2

# What the calls that begin operations stream.
P = TypeVar(
    "P", fleet_pb2.ScaleContextParallelResponse, fleet_pb2.ApplyTopologyResponse,
    fleet_pb2.DrainWorkerResponse)


def new_request_id() -> str:
    return f"python-{secrets.token_hex(6)}"


def scale_to_wire(cp: int, request_id: str | None,
                  timeout: float | None) -> fleet_pb2.ScaleContextParallelRequest:
    return fleet_pb2.ScaleContextParallelRequest(
        request_id=request_id or new_request_id(), cp=cp, timeout=_duration(timeout))


def apply_to_wire(config: ParallelConfig, buckets: Iterable[int], drop: Iterable[str],
                  request_id: str | None, timeout: float | None) -> fleet_pb2.ApplyTopologyRequest:
    return fleet_pb2.ApplyTopologyRequest(
        request_id=request_id or new_request_id(), config=config_to_wire(config),
        buckets=buckets, drop=drop, timeout=_duration(timeout))


def drain_to_wire(worker_id: str, request_id: str | None,
                  timeout: float | None) -> fleet_pb2.DrainWorkerRequest:
    return fleet_pb2.DrainWorkerRequest(
        request_id=request_id or new_request_id(), worker_id=worker_id, timeout=_duration(timeout))


def outcome(operation: Operation | None) -> Operation:
    """An operation as a call returns it; raises MusterError where it did not take effect."""
    if operation is None or operation.state == "RUNNING":
        name = f"operation {operation.id}" if operation else "the operation"
        raise MusterError(f"the coordinator ended its watch of {name}", "UNAVAILABLE",
                          retriable=True)
    if operation.state != "DONE":
        raise operation.failure or MusterError(
            f"operation {operation.id} ({operation.summary}) ended {operation.state}", "ABORTED")
    return operation


def operation_of(operation: fleet_pb2.Operation) -> Operation:
    failure = operation.failure
    return Operation(
        id=operation.id,
        kind=fleet_pb2.OperationKind.Name(operation.kind).removeprefix("OPERATION_KIND_"),
        state=fleet_pb2.OperationState.Name(operation.state).removeprefix("OPERATION_STATE_"),
        summary=operation.summary,
        replicas=tuple(map(_resize_of, operation.replicas)),
        failure=from_failure(failure.code, failure.message, failure.detail)
        if operation.HasField("failure") else None,
        started=seconds(operation.started),
        ended=seconds(operation.ended) if operation.HasField("ended") else None,
        no_change=operation.no_change)


def plan_of(response: fleet_pb2.PlanTopologyResponse) -> Plan:
    return Plan(
        tuple(tuple(rank.worker_id for rank in topology.ranks)
              for topology in response.topologies),
        tuple(map(_change_of, response.changes)))


def _duration(timeout: float | None) -> Duration | None:
    if timeout is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(round(timeout * 1e6))
    return duration


def _resize_of(resize: fleet_pb2.ReplicaResize) -> ReplicaResize:
    return ReplicaResize(
        replica=resize.replica,
        stage=fleet_pb2.ResizeStage.Name(resize.stage).removeprefix("RESIZE_STAGE_"),
        from_epoch=resize.from_epoch,
        to_epoch=resize.to_epoch,
        from_config=config_of(getattr(resize, "from")),
        to_config=config_of(resize.to),
        ranks=tuple(
            RankProgress(rank.rank, rank.worker_id, rank.progress.phase, rank.progress.done,
                         rank.progress.total, rank.progress.unit)
            for rank in resize.ranks),
        prepare_ms=milliseconds(resize.prepare_time),
        pause_ms=milliseconds(resize.pause),
        kv_blocks_moved=resize.kv_blocks_moved,
        kv_blocks_kept=resize.kv_blocks_kept,
        kv_bytes_moved=resize.kv_bytes_moved,
        kv_bytes_in_pause=resize.kv_bytes_in_pause,
        copy_ms=milliseconds(resize.copy_time),
        copy_bytes_per_second=resize.copy_bytes_per_second,
        sequences=resize.sequences,
        tokens_rebuilt=resize.tokens_rebuilt,
        sequences_dropped=resize.sequences_dropped)


def _change_of(change: fleet_pb2.ReplicaChange) -> ReplicaChange:
    return ReplicaChange(
        replica=change.replica,
        from_epoch=change.from_epoch,
        to_epoch=change.to_epoch,
        from_config=config_of(getattr(change, "from")),
        to_config=config_of(change.to),
        ranks=tuple(
            RankChange(
                rank.worker_id, fleet_pb2.RankChange.Role.Name(rank.role).removeprefix("ROLE_"),
                rank.rank, rank.weight_bytes_loaded, rank.weight_bytes_shared, rank.peak_bytes,
                rank.total_bytes, rank.kv_blocks_peak, rank.kv_blocks_total)
            for rank in change.ranks),
        flows=tuple(
            BlockFlow(flow.from_rank, flow.to_rank, flow.blocks, flow.bytes)
            for flow in change.flows),
        kv_blocks_moved=change.kv_blocks_moved,
        kv_blocks_kept=change.kv_blocks_kept,
        kv_bytes_moved=change.kv_bytes_moved,
        capacity_tokens_before=change.capacity_tokens_before,
        capacity_tokens_after=change.capacity_tokens_after,
        tokens_to_rebuild=change.tokens_to_rebuild,
        lost_sequences=tuple(change.lost_sequences),
        lost_count=change.lost_count,
        predicted_prepare_ms=milliseconds(change.predicted_prepare),
        predicted_pause_ms=milliseconds(change.predicted_pause))
