"""--replicas auto: a domain more is a replica more, and an upgrade goes from domain to domain."""

import signal
import subprocess
from collections.abc import Iterator

import pytest
from fleets import PATIENCE, await_that
from muster.client import Fleet, ReplicaStatus
from muster.sequence import Sequence
from scaled_fleet import GOLDEN, MODEL, PROMPT
from wire import Coordinator, Daemons


class Domains:
    """A fleet whose replicas have two ranks; each domain has three workers."""

    def __init__(self, daemons: Daemons):
        self._daemons = daemons
        self.coordinator: Coordinator = daemons.coordinator(2, "--replicas", "auto")
        self.fleet = Fleet(self.coordinator.address)
        self._processes: dict[str, list[subprocess.Popen]] = {}

    def start(self, domain: str) -> None:
        self._processes[domain] = [
            self._daemons.worker(self.coordinator, f"{domain}{it}", MODEL, words=("--domain", domain))
            for it in range(3)]

    def stop(self, domain: str) -> None:
        """As a pod ends: all at once, in order."""
        processes = self._processes.pop(domain)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            assert process.wait(PATIENCE) == 0

    def replicas(self) -> dict[int, ReplicaStatus]:
        return {it.replica: it for it in self.fleet.replicas()}

    def await_serving(self, **domains: int) -> None:
        """Exactly these replicas serve, each in its domain."""
        def serve() -> bool:
            replicas = self.replicas()
            return set(replicas) == set(domains.values()) and all(
                replicas[it].state == "SERVING" and
                {worker[0] for worker in replicas[it].workers} == {domain}
                for domain, it in domains.items())
        await_that(serve, f"{domains} serve")

    def forward(self, replica: int | None = None) -> None:
        """Gives the golden tokens."""
        with self.fleet.replica(replica, wait=PATIENCE) as leader:
            sequence: Sequence = leader.sequence()
            tokens = [sequence.decode(list(PROMPT)).id]
            while len(tokens) < 4:
                tokens.append(sequence.decode([tokens[-1]]).id)
            assert tokens == GOLDEN["tokens"][:4]


@pytest.fixture
def domains(daemons: Daemons) -> Iterator[Domains]:
    fleet = Domains(daemons)
    try:
        yield fleet
    finally:
        fleet.fleet.close()


def test_a_domain_more_is_a_replica_more_and_an_upgrade_goes_from_one_to_the_other(domains):
    domains.start("a")
    domains.await_serving(a=0)
    domains.start("b")
    domains.await_serving(a=0, b=1)
    for replica in (0, 1):
        domains.forward(replica)
    for domain, other in (("b", "a"), ("a", "b")):
        domains.stop(domain)
        domains.await_serving(**{other: {"a": 0, "b": 1}[other]})
        domains.forward()
        domains.start(domain)
        domains.await_serving(a=0, b=1)
    kinds = [it.kind for it in domains.fleet.events()]
    assert kinds.count("REPLICA_REMOVED") == 2 and kinds.count("REPLICA_ADDED") == 3


def test_the_standbys_of_a_domain_are_for_its_own_replica(domains):
    for domain in ("a", "b"):
        domains.start(domain)
    await_that(lambda: sorted(it.state for it in domains.replicas().values()) == ["SERVING"] * 2,
               "both serve")
    domains.fleet.scale_context_parallel(3)
    for replica in domains.replicas().values():
        assert len({worker[0] for worker in replica.workers}) == 1
        domains.forward(replica.replica)
