"""The calls of the daemons, with the types of their messages, for blocking and asyncio channels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from proto.muster.v1 import fleet_pb2, inference_pb2

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_MAX_MESSAGE_BYTES = 64 << 20

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A proxy of the environment is meant for the internet, not for a fleet.
    ("grpc.enable_http_proxy", 0),
    # A daemon that comes back is found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A server counts pings that come faster than every five minutes as abuse; what this bounds is
    # how long written bytes may stay unacknowledged, so that a dead peer is noticed.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Two replicas behind one address in turn must not share what is known of either.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class Method(Generic[Q, R]):
    """A call: its path, and how its messages become bytes and back."""

    path: str
    encode: Callable[[Q], bytes]
    decode: Callable[[bytes], R]


def _method(service: str, name: str, request: type[Q], response: type[R]) -> Method[Q, R]:
    return Method(
        f"/muster.v1.{service}/{name}", request.SerializeToString, response.FromString)


GET_TOPOLOGY = _method(
    "Fleet", "GetTopology", fleet_pb2.GetTopologyRequest, fleet_pb2.GetTopologyResponse)
WATCH_TOPOLOGY = _method(
    "Fleet", "WatchTopology", fleet_pb2.WatchTopologyRequest, fleet_pb2.WatchTopologyResponse)
PLAN_TOPOLOGY = _method(
    "Fleet", "PlanTopology", fleet_pb2.PlanTopologyRequest, fleet_pb2.PlanTopologyResponse)
WATCH_EVENTS = _method(
    "Fleet", "WatchEvents", fleet_pb2.WatchEventsRequest, fleet_pb2.WatchEventsResponse)
SCALE_CONTEXT_PARALLEL = _method(
    "Fleet", "ScaleContextParallel", fleet_pb2.ScaleContextParallelRequest,
    fleet_pb2.ScaleContextParallelResponse)
APPLY_TOPOLOGY = _method(
    "Fleet", "ApplyTopology", fleet_pb2.ApplyTopologyRequest, fleet_pb2.ApplyTopologyResponse)
DRAIN_WORKER = _method(
    "Fleet", "DrainWorker", fleet_pb2.DrainWorkerRequest, fleet_pb2.DrainWorkerResponse)
CANCEL_OPERATION = _method(
    "Fleet", "CancelOperation", fleet_pb2.CancelOperationRequest,
    fleet_pb2.CancelOperationResponse)
LIST_OPERATIONS = _method(
    "Fleet", "ListOperations", fleet_pb2.ListOperationsRequest, fleet_pb2.ListOperationsResponse)

FORWARD = _method(
    "Inference", "Forward", inference_pb2.ForwardRequest, inference_pb2.ForwardResponse)
FORWARD_STREAM = _method(
    "Inference", "ForwardStream", inference_pb2.ForwardRequest,
    inference_pb2.ForwardStreamResponse)
FORK_SEQUENCE = _method(
    "Inference", "ForkSequence", inference_pb2.ForkSequenceRequest,
    inference_pb2.ForkSequenceResponse)
FREE_SEQUENCES = _method(
    "Inference", "FreeSequences", inference_pb2.FreeSequencesRequest,
    inference_pb2.FreeSequencesResponse)
GET_CAPACITY = _method(
    "Inference", "GetCapacity", inference_pb2.GetCapacityRequest,
    inference_pb2.GetCapacityResponse)
WATCH_CAPACITY = _method(
    "Inference", "WatchCapacity", inference_pb2.WatchCapacityRequest,
    inference_pb2.WatchCapacityResponse)
GET_MODEL = _method(
    "Inference", "GetModel", inference_pb2.GetModelRequest, inference_pb2.GetModelResponse)
