"""Many changes of shape under load leave nothing behind: no memory, file, thread or segment, on any
worker nor on the coordinator."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleets import await_that
from scaled_fleet import Load, scaled_fleet
from wire import daemons_of_a_module

CHANGES = 20
CLIENTS = 4
# The allocator keeps some memory, and gRPC makes and ends threads and connections as it sees fit.
# What leaked would do so with every change: an arena has 4 MiB.
RESIDENT_SLACK = 8 << 10  # KiB
GRPC_SLACK = 4


@dataclass(frozen=True)
class Held:
    """What a process holds of the system."""

    resident: int  # KiB
    files: int
    threads: int
    segments: int

    @staticmethod
    def by(pid: int) -> "Held":
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return Held(resident, len(os.listdir(f"/proc/{pid}/fd")),
                    len(os.listdir(f"/proc/{pid}/task")),
                    Path(f"/proc/{pid}/maps").read_text().count("memfd:"))

    def within(self, other: "Held") -> bool:
        return (self.resident <= other.resident + RESIDENT_SLACK
                and self.files <= other.files + GRPC_SLACK
                and self.threads <= other.threads + GRPC_SLACK and self.segments <= other.segments)


@pytest.fixture
def fleet(tmp_path):
    with daemons_of_a_module(tmp_path) as daemons, scaled_fleet(daemons) as fleet:
        yield fleet


def test_twenty_changes_under_load_leave_nothing_behind(fleet):
    def held() -> dict[str, Held]:
        return {name: Held.by(process.pid) for name, process in fleet.processes.items()}

    def change(sizes) -> None:
        for cp in sizes:
            operation = fleet.scale(cp)
            assert operation.state == "DONE", operation.failure

    loads = [Load(fleet) for _ in range(CLIENTS)]
    for load in loads:
        load.__enter__()
    try:
        change((4, 1, 3, 2))  # what is made on first use is there, connections included
        before = held()
        sizes, numbers = [2], random.Random(7)
        while len(sizes) < CHANGES:
            sizes.append(numbers.choice([cp for cp in (1, 2, 3, 4) if cp != sizes[-1]]))
        change([*sizes[1:], 4, 2])
    finally:
        for load in loads:
            load.__exit__()
    for load in loads:
        assert load.texts and not load.failures
    await_that(lambda: all(now.within(before[name]) for name, now in held().items()),
               f"all is as it was: {before}, now {held()}")
