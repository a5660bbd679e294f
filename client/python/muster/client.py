"""Fleet and replicas over gRPC, with the plain values of muster.values in and out."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import grpc
from muster.errors import MusterError, from_rpc_error
from muster.values import (
    Capacity, Event, Model, ParallelConfig, ReplicaStatus, Sampling, Slice, StepResult, Token,
    event_of, milliseconds, model_of, replica_of, slice_to_wire, token_of)
from proto.muster.v1 import (
    fleet_pb2, fleet_pb2_grpc, inference_pb2, inference_pb2_grpc, types_pb2)

_MAX_MESSAGE_BYTES = 64 << 20


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
        return [replica_of(replica) for replica in response.replicas]

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
                    yield event_of(event)
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
        return model_of(response)

    def capacity(self) -> Capacity:
        with _errors_of(self._address):
            response = self._stub.GetCapacity(
                inference_pb2.GetCapacityRequest(), timeout=self._timeout).capacity
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
            client_id=self._client_id, slices=[slice_to_wire(piece) for piece in slices],
            expected_epoch=expected_epoch)
        with _errors_of(self._address):
            response = self._stub.Forward(request, timeout=self._timeout)
        return StepResult(
            tuple(token_of(output) for output in response.outputs), response.epoch, response.step,
            response.bucket, milliseconds(response.queue_time), milliseconds(response.relay_time),
            milliseconds(response.device_time))

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
