"""Many changes of shape under load leave nothing behind: no memory, file, thread or segment, on any
worker nor on the coordinator."""

import random

import pytest
from fleets import await_that
from process_held import Held
from scaled_fleet import Load, scaled_fleet

CHANGES = 20
CLIENTS = 4
# The allocator keeps some memory, and gRPC makes and ends threads and connections as it sees fit.
# What leaked would do so with every change: an arena has 4 MiB.
RESIDENT_SLACK = 8 << 10  # KiB
GRPC_SLACK = 4


def within(now: Held, before: Held) -> bool:
    return (now.resident <= before.resident + RESIDENT_SLACK
            and now.files <= before.files + GRPC_SLACK
            and now.threads <= before.threads + GRPC_SLACK and now.segments <= before.segments)


@pytest.fixture
def fleet(daemons):
    with scaled_fleet(daemons) as fleet:
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
    await_that(lambda: all(within(now, before[name]) for name, now in held().items()),
               f"all is as it was: {before}, now {held()}")
