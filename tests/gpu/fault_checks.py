"""What goes wrong on a GPU is named in time, and leaves nothing behind."""

import json
import os
import signal
import tempfile
import time
import unittest
from pathlib import Path

from gpu_fleet import (
    MODELS, PATIENCE, PROMISE, await_that, fleet, golden, gpu_megabytes, running)
from muster.client import Fleet, serving_leader
from muster.errors import MusterError
from muster.fleet_process import FleetError, FleetProcess
from muster.replica import Replica

_MODEL = "llama-mha12"
_PHASES = [
    "load", "warmup/probe", "warmup/vote", "warmup/allocate", "warmup/exchange", "warmup/open",
    "warmup/barrier", "warmup/self-test", "warmup/acknowledge", "warmup/relay", "capture/graphs",
    "capture/kv", "capture/agree"]
# The driver keeps a little for itself, and takes a moment to give the rest back.
_SLACK_MIB = 64
_GIVEN_BACK_SECONDS = 10.0
# More weights than a rank's GPU has memory.
_TOO_LARGE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16384,
    "intermediate_size": 53248, "num_hidden_layers": 160, "num_attention_heads": 128,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16"}


def _failure(process: FleetProcess) -> str:
    """Why the fleet does not come to serve."""
    with process:
        try:
            process.await_event("serving", PATIENCE)
        except FleetError as error:
            return str(error)
    raise AssertionError("it serves")


class _Clean(unittest.TestCase):
    """Every check leaves no process, and the GPU's memory as it was."""

    def setUp(self) -> None:
        before = gpu_megabytes()
        self.addCleanup(self.check_nothing_is_left, before)

    def check_nothing_is_left(self, before: int) -> None:
        await_that(lambda: not running(), f"all processes are gone: {running()}", PROMISE)
        await_that(lambda: gpu_megabytes() <= before + _SLACK_MIB,
                   f"memory is back: {gpu_megabytes()} MiB of {before}", _GIVEN_BACK_SECONDS)


class Devices(_Clean):
    """Devices that cannot be had."""

    def test_an_ordinal_out_of_range_is_refused_with_what_exists(self) -> None:
        message = _failure(fleet(MODELS / _MODEL, 1, 1, device="cuda:99"))
        self.assertIn("99", message)

    def test_an_unknown_uuid_is_refused(self) -> None:
        uuid = "GPU-00000000-0000-0000-0000-000000000000"
        self.assertIn(uuid, _failure(fleet(MODELS / _MODEL, 1, 1, device=f"cuda:{uuid}")))

    def test_without_a_gpu_cuda_is_refused(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        try:
            message = _failure(fleet(MODELS / _MODEL, 1, 1))
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if visible is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = visible
        self.assertRegex(message, "(?i)gpu|cuda")

    def test_two_ranks_without_mps_work_and_are_warned(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with fleet(MODELS / _MODEL, 1, 2, "--log-dir", folder, shared_by=2) as process:
                process.await_event("serving", PATIENCE)
            logs = "".join(path.read_text() for path in Path(folder).glob("w*.log"))
        self.assertIn("MPS", logs)

    def test_a_model_that_does_not_fit_is_refused_with_numbers(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(_TOO_LARGE))
            message = _failure(fleet(Path(folder), 1, 2, shared_by=2, load_format="dummy"))
        self.assertRegex(message, "rank|worker")
        self.assertRegex(message, "wanted|free|room")


class Deaths(_Clean):
    """Workers that are killed, without MPS."""

    def test_a_worker_killed_while_forming_is_named_at_once(self) -> None:
        for phase in _PHASES:
            with self.subTest(phase=phase):
                self.check_death_in(phase)

    def check_death_in(self, phase: str) -> None:
        process = fleet(MODELS / _MODEL, 1, 2, "--fault", f"w1:kill@{phase}", shared_by=2)
        died = None
        with process:
            while (event := process.next_event(PATIENCE)) is not None:
                if event["event"] == "process_ended":
                    died = time.monotonic()
                if event["event"] in ("failed", "serving"):
                    break
            named = time.monotonic()
            self.assertEqual(event and event["event"], "failed")
            for word in ("w1", "rank", phase.split("/")[0]):
                self.assertIn(word, event["message"])
            # The driver may still be ending it when its peers have long been told.
            if died is not None:
                self.assertLess(named - died, PROMISE)

    def test_a_worker_killed_at_work_is_named_in_time(self) -> None:
        with fleet(MODELS / _MODEL, 1, 2, shared_by=2) as process:
            pids = {it["worker_id"]: it["pid"]
                    for it in process.await_event("started", PATIENCE)["workers"]}
            serving = process.await_event("serving", PATIENCE)
            with Fleet(serving["coordinator"], patience=0) as client:
                (status,) = client.replicas()
                victim = status.workers[1]
                error, seconds = _kill_at_work(
                    serving_leader([status], 0), pids[victim])
        self.assertIn(victim, str(error))
        self.assertLess(seconds, PROMISE)


def _kill_at_work(leader: str, pid: int) -> tuple[MusterError, float]:
    """Kills a worker while a text is written; the error of the text, and how long it took."""
    pending = golden(_MODEL)["prompt"]
    killed = 0.0
    with Replica(leader, patience=0) as replica, replica.sequence() as sequence:
        try:
            for count in range(400):
                if count == 20:
                    killed = time.monotonic()
                    os.kill(pid, signal.SIGKILL)
                pending = [sequence.decode(pending).id]
        except MusterError as error:
            if not killed:
                raise
            return error, time.monotonic() - killed
    raise AssertionError("the text went on without the worker")
