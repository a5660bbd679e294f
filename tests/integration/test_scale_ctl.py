"""`musterctl scale-cp`, `apply` and `drain` on a fleet that writes texts, and what is told."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from fleets import PATIENCE, assert_one_line, await_that
from muster.errors import MusterError
from muster.values import ParallelConfig
from scaled_fleet import GOLDEN, PROMPT, Load, Text, scaled_fleet, unresized
from wire import piece, refusal

# Tokens of KV per block, and bytes of a block: 2 layers of 3 keys and 3 values of 16 float32.
BLOCK_TOKENS = 16
BLOCK_BYTES = BLOCK_TOKENS * 2 * 2 * 3 * 16 * 4


@pytest.fixture(scope="module")
def module_fleet(daemons):
    """w0 and w1 serve, w2 and w3 stand by; each has room for 341 blocks."""
    with scaled_fleet(daemons) as fleet:
        yield fleet


@pytest.fixture
def fleet(module_fleet):
    """With cp 2 and without sequences, whatever the test before it did."""
    module_fleet.reset()
    return module_fleet


@pytest.fixture
def replica(fleet):
    with fleet.client.replica() as replica:
        yield replica


@pytest.fixture
def leader(fleet):
    leader = fleet.leader
    yield leader
    leader.free()


@pytest.fixture
def three_workers(daemons):
    """w0 and w1 serve, w2 stands by."""
    with scaled_fleet(daemons, workers=3) as fleet:
        yield fleet


@pytest.fixture
def idle_text(replica):
    """A sequence of six blocks, the last of them not full, that nobody goes on with."""
    text = Text(replica)
    text.write(20)
    assert BLOCK_TOKENS * 5 < text.prefilled < BLOCK_TOKENS * 6
    yield text
    text.free()


def write_while(text: Text, process: subprocess.Popen, most: int) -> None:
    """Writes as long as the process runs, but no more than `most` tokens."""
    for _ in range(most):
        if process.poll() is not None:
            return
        text.write()


def assert_unbroken(text: Text, reference: list[int]) -> None:
    """It is the text of a fleet that keeps its shape, and no token was sent twice."""
    assert text.tokens == reference[:len(text.tokens)]
    assert text.prefilled == len(PROMPT) + len(text.tokens) - 1


def blocks_kept(blocks: int, before: int, after: int) -> int:
    """Of a sequence: those whose rank, and with it the worker, stays."""
    return sum(block % before == block % after for block in range(blocks))


def test_texts_go_on_over_every_size_as_if_nothing_had_happened(fleet, replica):
    reference = unresized(fleet, 400)
    with Load(fleet) as load:
        text, idle = Text(replica), Text(replica)
        idle.write(10)
        for cp in (4, 3, 1, 2):
            before = fleet.replica.epoch
            text.write(5)
            assert text.epochs[-1] == before
            with fleet.running_ctl("scale-cp", str(cp)) as process:
                write_while(text, process, 70)
            text.write(5)
            idle.write(5)
            assert fleet.replica.config.cp == cp
            assert text.epochs[-1] == idle.epochs[-1] == fleet.replica.epoch == before + 1
            assert fleet.replica.workers == tuple(f"w{rank}" for rank in range(cp))
            await_that(lambda: fleet.standbys == {f"w{rank}" for rank in range(cp, 4)},
                       "those that left stand by", timeout=10)
            written = load.texts
            await_that(lambda: load.texts > written or load.failures, "others are answered")
    assert not load.failures
    assert_unbroken(text, reference)
    assert_unbroken(idle, reference)
    text.free()
    idle.free()


def test_the_final_line_tells_what_was_moved_and_kept(fleet, idle_text):
    result = fleet.ctl("scale-cp", "4")
    assert result.returncode == 0, result.stderr
    kept = blocks_kept(6, 2, 4)
    assert re.fullmatch(
        rf"cp 2 → 4: prepare \d+(\.\d+)? m?s, pause \d+(\.\d+)? m?s, {6 - kept} KV blocks moved "
        rf"\({(6 - kept) * BLOCK_BYTES >> 10} KiB, [\d.]+ [KMG]iB/s\), {kept} kept, 1 sequence",
        result.stdout.splitlines()[-1]), result.stdout


@pytest.mark.parametrize("cp", [1, 3, 4])
def test_the_json_has_the_figures_of_the_change_which_the_dry_run_foretold(fleet, idle_text, cp):
    before = fleet.replica.epoch
    (foretold,) = fleet.ctl_json("scale-cp", str(cp), "--dry-run")["changes"]
    assert fleet.replica.epoch == before
    operation = fleet.ctl_json("scale-cp", str(cp))
    assert (operation["kind"], operation["state"]) == ("SCALE_CONTEXT_PARALLEL", "DONE")
    assert operation["summary"] == f"cp 2 to {cp}" and not operation["no_change"]
    (facts,) = operation["replicas"]
    assert (facts["stage"], facts["from"]["cp"], facts["to"]["cp"]) == ("DONE", 2, cp)
    assert facts["from_epoch"] == foretold["from_epoch"] == before
    assert facts["to_epoch"] == foretold["to_epoch"] == fleet.replica.epoch == before + 1
    kept = blocks_kept(6, 2, cp)
    for figures in (facts, foretold):
        assert (figures["kv_blocks_moved"], figures["kv_blocks_kept"]) == (6 - kept, kept)
        assert figures["kv_bytes_moved"] == (6 - kept) * BLOCK_BYTES
    assert 0 <= facts["kv_bytes_in_pause"] <= facts["kv_bytes_moved"]
    assert 0 < facts["pause_ms"] <= operation["took_ms"]
    assert 0 < facts["prepare_ms"] <= operation["took_ms"]
    assert (facts["sequences"], facts["tokens_rebuilt"], facts["sequences_dropped"]) == (1, 0, 0)


def test_the_dry_run_shows_what_it_would_take_and_changes_nothing(fleet, idle_text):
    before, operations = fleet.replica, fleet.client.operations()
    result = fleet.ctl("scale-cp", "4", "--dry-run")
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == (f"PLAN epoch {before.epoch} → {before.epoch + 1} cp 2 → 4 tp=1 "
                        "world 2 → 4 nothing has been changed")
    for line in ("recruits w2 w3", "survivors w0 w1", "KV 2 blocks, 24 KiB to move; 4 blocks stay",
                 "0→2 12 KiB 1→3 12 KiB", "KV peak 3 of 341 blocks on ranks 0 1",
                 "capacity 10,912 → 21,824 tokens"):
        assert line in lines
    assert any(re.fullmatch(r"predicted prepare .* \(serving goes on\), pause .*", line)
               for line in lines)
    assert (fleet.replica.epoch, fleet.replica.workers) == (before.epoch, before.workers)
    assert fleet.client.operations() == operations


@pytest.mark.parametrize("config", [
    ParallelConfig(tp=1, cp=4), ParallelConfig(tp=3, cp=1)], ids=["cp 4", "tp 3"])
def test_the_capacity_after_a_change_is_the_one_that_was_foretold(fleet, replica, config):
    (change,) = fleet.client.plan(config).changes
    before = replica.capacity()
    assert change.capacity_tokens_before == before.total_blocks * before.block_tokens
    fleet.client.apply_topology(config)
    after = replica.capacity()
    # What is left of a block's memory may make one more.
    assert abs(change.capacity_tokens_after - after.total_blocks * after.block_tokens) <= (
        config.cp * BLOCK_TOKENS)


def shortest_pause(daemons, kv_memory: str) -> float:
    """Milliseconds in which a fleet without sequences goes from four ranks to two."""
    with scaled_fleet(daemons, cp=4, kv_memory=kv_memory) as fleet:
        pauses = []
        for _ in range(4):
            pauses.append(fleet.scale(2).replicas[0].pause_ms)
            fleet.scale(4)
        for process in fleet.processes.values():
            process.terminate()
    return min(pauses)


def test_the_pause_does_not_grow_with_the_memory_of_the_cache(daemons):
    small, large = shortest_pause(daemons, "4MiB"), shortest_pause(daemons, "64MiB")
    assert large < 4 * small + 1, f"{small} ms with 4 MiB, {large} ms with 64 MiB"


def test_the_size_that_a_fleet_has_changes_nothing_and_says_so(fleet):
    before = fleet.replica
    result = fleet.ctl("scale-cp", "2", "--request-id", "no-op")
    assert (result.returncode, result.stdout) == (0, "cp 2: nothing had to be changed\n")
    assert fleet.operation("no-op").no_change and not fleet.operation("no-op").replicas
    assert fleet.replica == before


def test_without_waiting_it_returns_at_once_and_the_same_id_joins_it(fleet):
    with fleet.scaling(4, "grow"):
        running = fleet.operation("grow")
        assert (running.state, running.summary) == ("RUNNING", "cp 2 to 4")
        assert re.search(r"^grow +scale-cp +cp 2 to 4 +RUNNING", fleet.ctl("operations").stdout,
                         re.MULTILINE)
        again = fleet.ctl("scale-cp", "4", "--no-wait", "--request-id", "grow")
        assert again.returncode == 0 and "operation grow" in again.stdout
    assert fleet.operation("grow").state == "DONE"
    epoch = fleet.replica.epoch
    repeated = fleet.ctl("scale-cp", "4", "--request-id", "grow")
    assert repeated.returncode == 0
    assert repeated.stdout.splitlines()[-1].startswith("cp 2 → 4: prepare ")
    assert fleet.replica.epoch == epoch
    assert [it.id for it in fleet.client.operations()].count("grow") == 1


def test_an_interrupt_ends_the_watching_and_not_the_operation(fleet):
    with fleet.scaling(4, "watched"):
        with subprocess.Popen(
                [*fleet.ctl_command(), "scale-cp", "4", "--request-id", "watched"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True) as watch:
            assert "operation watched" in watch.stdout.readline()
            watch.send_signal(signal.SIGINT)
            _, complaint = watch.communicate(timeout=PATIENCE)
        assert watch.returncode == 130
        assert "watched" in complaint
        assert fleet.operation("watched").state == "RUNNING"
    assert fleet.operation("watched").state == "DONE"
    assert fleet.replica.config.cp == 4


def test_a_cancelled_operation_leaves_everything_as_it_was(fleet, replica):
    reference = unresized(fleet, 30)
    text = Text(replica)
    text.write(20)
    before = fleet.replica
    with fleet.scaling(4, "unwanted"):
        assert fleet.ctl("cancel", "unwanted").returncode == 0
    operation = fleet.operation("unwanted")
    assert operation.state == "ROLLED_BACK" and operation.failure.reason == "OPERATION_CANCELLED"
    epoch = before.epoch + 2  # `scaling` goes to and fro.
    assert (fleet.replica.epoch, fleet.replica.workers) == (epoch, before.workers)
    text.write(10)
    assert text.epochs[-1] == epoch
    assert_unbroken(text, reference)
    text.free()
    await_that(lambda: fleet.standbys == {"w2", "w3"}, "the recruits stand by")
    assert fleet.scale(4).state == "DONE"


def test_a_standby_that_answers_late_is_waited_for(three_workers):
    """It stands still before the coordinator has ever called it."""
    fleet = three_workers
    os.kill(fleet.processes["w2"].pid, signal.SIGSTOP)
    try:
        fleet.ctl_json("scale-cp", "3", "--no-wait", "--request-id", "patient")
        with pytest.raises(AssertionError, match="not within"):
            await_that(lambda: fleet.operation("patient").state != "RUNNING", "it ends", timeout=1)
    finally:
        os.kill(fleet.processes["w2"].pid, signal.SIGCONT)
    await_that(lambda: fleet.operation("patient").state == "DONE", "it is done")


def test_a_timeout_names_the_worker_that_is_late_and_no_other(three_workers):
    fleet = three_workers
    fleet.scale(3)
    fleet.scale(2)
    before = fleet.replica
    os.kill(fleet.processes["w2"].pid, signal.SIGSTOP)
    try:
        result = fleet.ctl("scale-cp", "3", "--timeout", "1s")
    finally:
        os.kill(fleet.processes["w2"].pid, signal.SIGCONT)
    assert_one_line(result, "cp 2 to 3 was rolled back", "within 1 s", "w2", "epoch 3 still serves")
    assert (fleet.replica.epoch, fleet.replica.workers) == (before.epoch, before.workers)
    assert "w0" not in result.stderr and "w1" not in result.stderr
    assert fleet.client.operations()[0].failure.workers == ("w2",)


def test_events_tell_of_an_operation_from_its_start_to_its_end(fleet):
    last = fleet.events()[-1].sequence
    operation = fleet.client.scale_context_parallel(4, request_id="told")
    events = []
    for event in fleet.client.events(last + 1, follow=True, timeout=PATIENCE):
        events.append(event)
        if event.kind == "OPERATION_ENDED":
            break
    assert {event.operation_id for event in events} == {"told"}
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-1]) == ("OPERATION_STARTED", "OPERATION_ENDED")
    assert set(kinds[1:-1]) == {"RESIZE_PROGRESS", "RESIZED"} and kinds.count("RESIZED") == 1
    assert {event.epoch for event in events[1:-1]} == {operation.replicas[0].to_epoch}
    phases = [event.phase for event in events[:kinds.index("RESIZED")] if event.phase]
    assert phases == ["assign", "load", "warmup", "capture"]
    printed = fleet.ctl("--json", "events")
    told = [it for it in map(json.loads, printed.stdout.splitlines()) if it["sequence"] > last]
    assert [(it["kind"], it["operation_id"]) for it in told] == [(kind, "told") for kind in kinds]


def test_another_tp_computes_sequences_again_and_texts_go_on(fleet, replica, idle_text):
    reference = unresized(fleet, 60)
    held = idle_text.prefilled
    result = fleet.apply("tp: 3\ncp: 1\n")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(
        rf"tp 1 → 3, cp 2 → 1: prepare .*, pause .*, 0 KV blocks moved, 0 kept, 1 sequence, "
        rf"{held} tokens computed again", result.stdout.splitlines()[-1]), result.stdout
    assert fleet.replica.config == ParallelConfig(tp=3, cp=1)
    idle_text.write(20)
    assert_unbroken(idle_text, reference)
    result = fleet.apply("tp: 1\ncp: 2\nbuckets: [16, 4, 1]\n", "--json")
    (facts,) = json.loads(result.stdout)["replicas"]
    assert facts["tokens_rebuilt"] == held + 20 and facts["sequences"] == 1
    assert replica.model().buckets == (16, 4, 1)
    idle_text.write(20)
    assert_unbroken(idle_text, reference)


def test_other_buckets_alone_are_a_change_that_moves_nothing(fleet, replica, idle_text):
    reference = unresized(fleet, 40)
    before = fleet.replica.epoch
    result = fleet.apply("buckets: [8, 1]\n", "--json")
    (facts,) = json.loads(result.stdout)["replicas"]
    assert (facts["kv_blocks_moved"], facts["kv_blocks_kept"]) == (0, 6)
    assert (fleet.replica.epoch, replica.model().buckets) == (before + 1, (8, 1))
    idle_text.write(20)
    assert_unbroken(idle_text, reference)
    foretold = fleet.apply("buckets: [16, 1]\n", "--dry-run")
    assert f"PLAN  epoch {before + 1} → {before + 2}   buckets 8 1 to 16 1" in foretold.stdout
    again = fleet.apply("buckets: [8, 1]\ncp: 2\n")
    assert again.returncode == 0 and "nothing had to be changed" in again.stdout
    assert fleet.replica.epoch == before + 1
    result = fleet.apply("buckets: [16, 1]\n")
    assert result.stdout.splitlines()[-1].startswith("buckets 8 1 to 16 1: prepare ")


def test_a_drained_worker_is_named_in_the_final_line(three_workers):
    for worker, line in (("w1", "worker w1 drained, its rank moved to w2: prepare "),
                         ("w2", "worker w2 drained, cp 2 → 1: prepare ")):
        result = three_workers.ctl("drain", worker)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1].startswith(line)


def test_another_number_of_replicas_ends_with_a_line_and_its_ranks_serve_at_once(three_workers):
    three_workers.scale(1)
    result = three_workers.apply("replicas: 2\n")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"replicas 1 to 2: done in \d+(\.\d+)? m?s", result.stdout.splitlines()[-1])
    assert re.search(r"w1 .* SERVING", three_workers.ctl("status").stdout)


def test_a_drained_workers_rank_goes_to_a_standby_and_then_to_nobody(three_workers):
    fleet = three_workers
    reference = unresized(fleet, 300)
    with fleet.client.replica() as replica, Load(fleet) as load:
        text = Text(replica)
        for worker, workers in (("w1", ("w0", "w2")), ("w2", ("w0",))):
            text.write(5)
            with fleet.running_ctl("drain", worker) as process:
                write_while(text, process, 70)
            text.write(5)
            assert fleet.replica.workers == workers
            assert text.epochs[-1] == fleet.replica.epoch
            assert fleet.coordinator.workers()[worker].drained
            assert worker not in fleet.standbys
            assert re.search(rf"- +{worker} .* DRAINED", fleet.ctl("status").stdout)
    assert not load.failures
    assert_unbroken(text, reference)
    assert fleet.replica.config == ParallelConfig(tp=1, cp=1)
    last, former = fleet.client.operations()[:2]
    assert (former.summary, last.summary) == ("drain w1", "drain w2, cp 2 to 1")


def test_a_drained_worker_gets_a_rank_again_when_its_process_is_new(three_workers):
    fleet = three_workers
    assert fleet.ctl("drain", "w2").returncode == 0
    with pytest.raises(MusterError, match="needs 3 workers"):
        fleet.scale(3)
    drained = fleet.processes["w2"]
    drained.terminate()
    drained.wait(PATIENCE)
    await_that(lambda: "w2" not in fleet.coordinator.workers(), "w2 has left")
    fleet.start_worker("w2")
    fleet.scale(3)
    assert fleet.replica.workers == ("w0", "w1", "w2")


def test_a_stale_epoch_is_refused_with_the_current_one_and_no_epoch_rides_through(fleet, leader):
    before = leader.capacity().epoch
    leader.forward(piece("a", PROMPT), expected_epoch=before)
    fleet.scale(4)
    token = piece("a", GOLDEN["tokens"][:1], first=len(PROMPT))
    found = refusal(lambda: leader.forward(token, expected_epoch=before))
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "STALE_EPOCH")
    assert found.detail.epoch == before + 1 and found.detail.retriable
    answer = leader.forward(token)
    assert answer.epoch == before + 1
    assert answer.outputs[0].sampled_token == GOLDEN["tokens"][1]


@pytest.mark.parametrize("names_epoch", [False, True], ids=["without an epoch", "in its epoch"])
def test_a_request_that_was_answered_before_a_change_is_answered_alike_after_it(
        fleet, leader, names_epoch):
    fields = {"request_id": f"once {names_epoch}"}
    if names_epoch:
        fields["expected_epoch"] = leader.capacity().epoch
    answer = leader.forward(piece("a", PROMPT), **fields)
    fleet.scale(4)
    assert leader.forward(piece("a", PROMPT), **fields) == answer


def test_forks_share_their_blocks_in_the_new_epoch_as_well(fleet, replica, idle_text):
    def used() -> int:
        capacity = replica.capacity()
        return capacity.total_blocks - capacity.free_blocks

    assert used() == 6
    with idle_text.sequence.fork() as fork:
        fleet.scale(3)
        assert used() == 6
        token = idle_text.tokens[-1]
        assert fork.decode([token]).id == idle_text.write()[-1]
        # The block that both have written into is now two.
        assert used() == 7
    assert used() == 6


def test_a_benchmark_tells_of_the_changes_that_happened_while_it_ran(fleet):
    command = [sys.executable, "-m", "muster.bench", "--coordinator", fleet.coordinator.address,
               "--clients", "4", "--requests", "60", "--prompt-lengths", "16-64",
               "--output-lengths", "20-40", "--no-reuse", "--resizes", "--json"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as bench:
        done = []
        while bench.poll() is None:
            done += [fleet.scale(cp).replicas[0] for cp in (4, 2)]
        output, errors = bench.communicate()
    assert bench.returncode == 0, errors
    report = json.loads(output)
    assert (report["requests"], report["ok"], report["failed"]) == (60, 60, 0)
    assert report["rebuilt_sequences"] == 0
    assert report["resizes"] and not any(it["rolled_back"] for it in report["resizes"])
    facts = {resize.to_epoch: resize for resize in done}
    for resize in report["resizes"]:
        fact = facts[resize["epoch"]]
        assert (resize["from_cp"], resize["to_cp"]) == (fact.from_config.cp, fact.to_config.cp)
        assert resize["kv_blocks_moved"] == fact.kv_blocks_moved
        assert resize["begun_s"] <= resize["ended_s"]
    assert report["token_ms"]["prepare"]["p50"] > 0 and report["token_ms"]["pause"]["max"] > 0
