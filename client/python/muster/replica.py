"""A replica over gRPC, with the plain values of muster.values in and out."""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Tokens
from types import TracebackType
from typing import Self

from muster import methods
from muster.errors import MusterError
from muster.lease import LeaseKeeper
from muster.link import Link
from muster.messages import capacity_of, fork_of, forward_to_wire, model_of, result_of
from muster.methods import Method, Q, R
from muster.retry import Retries
from muster.sequence import Sequence
from muster.tls import WORKER, Tls, TlsFolder, find_tls
from muster.values import Capacity, Fork, Model, Sampling, Slice, StepResult, Token
from proto.muster.v1 import inference_pb2

# Seconds for which what is marked retriable is retried, unless the caller says otherwise.
PATIENCE = 10.0
# Answers "host:port" of a replica's leader, or raises MusterError.
FindLeader = Callable[[], str]


class Replica:
    """Calls of a replica's leader, as one client with sequences of its own. Thread-safe.

    Every failed call raises MusterError, after retries where the error says that they may help.
    """

    def __init__(self, address: str, client_id: str | None = None, timeout: float = 120.0,
                 patience: float = PATIENCE, find_leader: FindLeader | None = None,
                 tls: TlsFolder = None):
        """Connects when the first call is made.

        Args:
          address: "host:port" of the leader.
          client_id: names the owner of the sequences; by default a new one.
          timeout: seconds that one call may take.
          patience: seconds for which retriable failures are retried; 0: not at all.
          find_leader: finds the leader when it no longer answers at `address`.
          tls: as of Fleet.
        """
        self._client_id = client_id or new_client_id()
        self._timeout = timeout
        self._patience = patience
        self._find_leader = find_leader
        self._link = Link(address, Tls(find_tls(tls), WORKER))
        self._model: Model | None = None
        self._lease = LeaseKeeper(self._renew)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def client_id(self) -> str:
        return self._client_id

    @property
    def address(self) -> str:
        """Of the leader, as far as it is known."""
        return self._link.address

    def close(self) -> None:
        self._lease.stop()
        self._link.close()

    def model(self) -> Model:
        """What the replica runs, asked anew."""
        self._model = model_of(self._call(methods.GET_MODEL, inference_pb2.GetModelRequest()))
        return self._model

    def known_model(self) -> Model:
        """As `model`, asked once."""
        return self._model or self.model()

    def capacity(self) -> Capacity:
        request = inference_pb2.GetCapacityRequest(client_id=self._client_id)
        return capacity_of(self._call(methods.GET_CAPACITY, request).capacity)

    def watch_capacity(self, timeout: float | None = None) -> Iterator[Capacity]:
        """The capacity at once, then after every change; renews the lease meanwhile.

        Args:
          timeout: seconds after which it ends with a MusterError (DEADLINE_EXCEEDED); None: never.
        """
        request = inference_pb2.WatchCapacityRequest(client_id=self._client_id)
        with self._link.stream(methods.WATCH_CAPACITY, request, timeout) as changes:
            for change in changes:
                yield capacity_of(change.capacity)

    def forward(self, slices: Iterable[Slice], expected_epoch: int | None = None,
                request_id: str | None = None) -> StepResult:
        """Runs one batch, once, however often the connection is lost; a refused one changed nothing.

        Args:
          slices: of different sequences, prefill chunks and decode tokens mixed.
          expected_epoch: refuse to run in another epoch; the error names the current one.
          request_id: names the request for retries of the caller's own; by default a new one.
        """
        request = forward_to_wire(
            self._client_id, request_id or secrets.token_hex(8), slices, expected_epoch)
        return result_of(self._call(methods.FORWARD, request, in_epoch=expected_epoch is not None))

    def fork(self, sequence_id: str, new_sequence_id: str, tokens: int | None = None) -> Fork:
        """Makes a sequence that begins with the first `tokens` of another (None: all).

        A connection lost meanwhile is not retried: whether the sequence exists is then unknown, and
        `free` makes sure that it does not.
        """
        request = inference_pb2.ForkSequenceRequest(
            client_id=self._client_id, sequence_id=sequence_id, new_sequence_id=new_sequence_id,
            tokens=tokens)
        return fork_of(self._call(methods.FORK_SEQUENCE, request, idempotent=False))

    def free(self, *sequence_ids: str) -> int:
        """Gives the KV blocks of sequences back; returns how many of them were held."""
        request = inference_pb2.FreeSequencesRequest(
            client_id=self._client_id, sequence_ids=sequence_ids)
        return self._call(methods.FREE_SEQUENCES, request).freed

    def abandon(self, sequence_id: str) -> None:
        """Frees a sequence whose end must not hide why it ended: one try, and no error."""
        request = inference_pb2.FreeSequencesRequest(
            client_id=self._client_id, sequence_ids=[sequence_id])
        try:
            self._link.call(methods.FREE_SEQUENCES, request, 1.0)
        except (MusterError, ValueError):  # ValueError: the channel is closed.
            pass

    def sequence(self) -> Sequence:
        """A new sequence. As long as this replica is open, its lease is renewed."""
        self._lease.start(self.known_model().client_lease_s)
        return Sequence(self)

    def generate(self, prompt: Tokens[int], max_tokens: int, sampling: Sampling = Sampling(),
                 top_n: int = 0, chunk: int | None = None) -> Iterator[Token]:
        """Yields tokens, the end token included, and frees the sequence when it ends.

        Args:
          prompt: token ids, at least one.
          max_tokens: how many to generate at most.
          sampling: how tokens are chosen.
          top_n: how many most likely tokens to return with each.
          chunk: prompt tokens per step; by default as many as a step can hold.
        """
        with self.sequence() as sequence:
            yield from sequence.generate(prompt, max_tokens, sampling, top_n, chunk)

    def _call(self, method: Method[Q, R], request: Q, idempotent: bool = True,
              in_epoch: bool = False) -> R:
        retries = Retries(self._patience)
        while True:
            try:
                return self._link.call(method, request, self._timeout)
            except MusterError as error:
                # A stale epoch stays stale until whoever named it names another.
                stale = in_epoch and error.reason == "STALE_EPOCH"
                if stale or (error.unanswered and not idempotent):
                    raise
                self._wait(error, retries.pause_after(error))

    def _wait(self, error: MusterError, pause: float) -> None:
        """Until it may be better: there is room, or the leader is elsewhere."""
        if error.of_admission:
            self._await_change(pause)
            return
        time.sleep(pause)
        if self._find_leader and (error.code == "UNAVAILABLE" or error.reason == "NOT_LEADER"):
            try:
                self._link.move(self._find_leader())
            except MusterError:
                pass  # The coordinator is away as well; the leader may be where it was.

    def _await_change(self, pause: float) -> None:
        try:
            changes = self.watch_capacity(pause)
            next(changes)
            next(changes)
        except (MusterError, StopIteration):
            pass  # Nothing changed for so long: asking again does no harm.

    def _renew(self) -> None:
        request = inference_pb2.GetCapacityRequest(client_id=self._client_id)
        self._link.call(methods.GET_CAPACITY, request, self._timeout)


def new_client_id() -> str:
    return f"python-{os.getpid()}-{secrets.token_hex(4)}"
