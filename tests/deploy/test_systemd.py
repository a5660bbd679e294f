"""The units of systemd: correct, as tight as the docs say, and loose enough for a fleet to serve.

Where systemd is not the first process, sandbox.py puts a daemon under what its unit sets.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleets import MODELS, PATIENCE, await_that, musterctl
from muster.fleet_process import bin_directory
from proto.muster.v1 import fleet_pb2
from sandbox import TOOLS, command
from unit_file import UnitFile
from wire import Coordinator

_ROOT = Path(__file__).resolve().parents[2]
_UNITS = _ROOT / "deploy/systemd"
_COORDINATOR = _UNITS / "muster-coordinator.service"
_WORKER = _UNITS / "muster-worker@.service"
_GPU = _UNITS / "muster-worker@.service.d/gpu.conf"
# Users that no system gives to anybody.
_MUSTER, _SOMEBODY_ELSE = 64738, 64739
# As long as --drain-timeout is by default, and something for the rest.
_DRAIN_SECONDS = 30

_ANALYZE = pytest.mark.skipif(not shutil.which("systemd-analyze"),
                              reason="systemd-analyze is not here (Debian: systemd)")


def _analyze(*words: str | Path) -> str:
    result = subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def _exposure(folder: Path, unit: Path, drop_in: Path | None = None) -> float:
    """From 0, fully shut in, to 10."""
    shutil.copy(unit, folder)
    if drop_in:
        (folder / drop_in.parent.name).mkdir()
        shutil.copy(drop_in, folder / drop_in.parent.name)
    output = _analyze("security", "--offline=true", folder / unit.name)
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", output)
    assert found, output
    return float(found[1])


@_ANALYZE
@pytest.mark.parametrize("unit", [_COORDINATOR, _WORKER], ids=lambda unit: unit.name)
def test_systemd_understands_the_unit(unit, tmp_path):
    # With the programs of this build, since none are installed.
    text = unit.read_text().replace("/usr/bin", str(bin_directory()))
    instance = tmp_path / unit.name.replace("@", "@0")
    instance.write_text(text)
    drop_in = tmp_path / f"{instance.name}.d"
    drop_in.mkdir()
    if unit == _WORKER:
        shutil.copy(_GPU, drop_in)
    output = _analyze("--man=no", "verify", instance)
    assert "muster" not in output, output


@_ANALYZE
@pytest.mark.parametrize("unit, drop_in", [(_COORDINATOR, None), (_WORKER, None), (_WORKER, _GPU)])
def test_a_unit_is_as_tight_as_the_docs_say(unit, drop_in, tmp_path):
    name = unit.name + (f" with {drop_in.name}" if drop_in else "")
    docs = (_ROOT / "docs/operations.md").read_text()
    documented = re.search(rf"^\| `{re.escape(name)}` \| ([0-9.]+) \|", docs, re.MULTILINE)
    assert documented, f"docs/operations.md has no row for {name}"
    exposure = _exposure(tmp_path, unit, drop_in)
    print(f"{name}: exposure {exposure}, documented {documented[1]}")
    assert exposure <= float(documented[1])


@pytest.mark.parametrize("unit", [_COORDINATOR, _WORKER], ids=lambda unit: unit.name)
def test_a_daemon_gets_no_privilege_and_writes_nowhere(unit):
    settings = UnitFile.read(unit)
    assert settings.all("CapabilityBoundingSet") == [""]
    assert settings.last("ProtectSystem") == "strict"
    assert settings.is_on("NoNewPrivileges")
    assert settings.all("ReadWritePaths") == []
    assert settings.last("RestrictAddressFamilies") == "AF_INET AF_INET6 AF_UNIX"


def test_workers_of_a_host_can_open_the_memory_of_each_other():
    settings = UnitFile.read(_WORKER)
    assert settings.last("User") and not settings.is_on("DynamicUser")
    assert not settings.is_on("PrivateUsers")
    assert not settings.is_on("RemoveIPC")
    assert not UnitFile.read(_COORDINATOR).is_on("RemoveIPC"), "it is the same user"


def test_the_coordinator_runs_no_code_that_it_wrote():
    assert UnitFile.read(_COORDINATOR).is_on("MemoryDenyWriteExecute")
    assert not UnitFile.read(_WORKER).is_on("MemoryDenyWriteExecute")


def test_systemd_waits_longer_than_a_worker_drains():
    settings = UnitFile.read(_WORKER)
    assert settings.last("KillSignal") == "SIGTERM"
    assert settings.seconds("TimeoutStopSec") >= _DRAIN_SECONDS + 10


def test_a_daemon_that_fails_is_started_again_however_often():
    for unit in (_COORDINATOR, _WORKER):
        settings = UnitFile.read(unit)
        assert settings.last("Restart") == "on-failure"
        assert settings.last("StartLimitIntervalSec") == "0"


def test_a_gpu_worker_sees_no_device_but_nvidias():
    settings = UnitFile.read(_WORKER, _GPU)
    assert settings.last("DevicePolicy") == "closed"
    assert all(it.startswith("char-nvidia") for it in settings.all("DeviceAllow"))
    assert not settings.is_on("PrivateDevices") and not settings.is_on("PrivateIPC")


class ShutInFleet:
    """A coordinator and two workers, each under its unit."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._processes: list[subprocess.Popen] = []

    def start(self, unit: UnitFile, user: int, daemon: str, *words: str) -> subprocess.Popen:
        program = [str(bin_directory() / daemon), "--die-with-parent", *words]
        log = self.folder / f"{len(self._processes)}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command(unit, user, program), stdin=subprocess.DEVNULL,
                stdout=stderr, stderr=stderr)
        self._processes.append(process)
        return process

    def coordinator(self) -> Coordinator:
        process = self.start(UnitFile.read(_COORDINATOR), _MUSTER, "muster-coordinator",
                             "--listen", "127.0.0.1:0", "--cp", "2")
        log = self.folder / "0.log"
        found = await_that(lambda: re.search(r"127\.0\.0\.1:[1-9]\d*", log.read_text()),
                           f"the coordinator listens: {log.read_text()}")
        return Coordinator(found[0], process)

    def worker(self, coordinator: Coordinator, name: str, user: int = _MUSTER,
               unit: UnitFile | None = None) -> subprocess.Popen:
        return self.start(
            unit or UnitFile.read(_WORKER), user, "muster-worker", "--coordinator",
            coordinator.address, "--worker-id", name, "--model", str(MODELS / "llama-mha12"),
            "--kv-memory", "4MiB", "--threads", "1")

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def can_shut_in() -> None:
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(missing)}: not here, so that no sandbox can be made")
    if os.geteuid() != 0 or subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True,
            check=False).returncode != 0:
        pytest.skip("only root who may mount can make the sandbox of a unit")
    if bin_directory().is_relative_to("/home") or subprocess.run(
            ["setpriv", f"--reuid={_MUSTER}", "--clear-groups", "test", "-x",
             str(bin_directory() / "muster-worker")], check=False).returncode != 0:
        pytest.skip(f"another user cannot run the programs in {bin_directory()}")


@pytest.fixture
def shut_in(can_shut_in, tmp_path) -> Iterator[ShutInFleet]:
    fleet = ShutInFleet(tmp_path)
    yield fleet
    fleet.end()


def _state(coordinator: Coordinator) -> int:
    return coordinator.replica().state


# What an intruder would try first. It prints the names of what it could do.
_ATTEMPTS = """
import mmap, os, socket
def attempt(name, action):
    try:
        action()
        print(name)
    except OSError:
        pass
attempt("breathe", lambda: os.stat("/"))
attempt("write", lambda: open("/usr/muster", "w"))
attempt("become root", lambda: os.setuid(0))
attempt("listen to the kernel", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt("write and execute", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
attempt("see the first process", lambda: open("/proc/1/stat"))
attempt("see the processor", lambda: open("/proc/cpuinfo"))
"""


@pytest.mark.parametrize("unit, possible", [
    (_COORDINATOR, ["breathe"]),
    (_WORKER, ["breathe", "write and execute", "see the processor"])])
def test_the_sandbox_shuts_in(can_shut_in, unit, possible):
    words = command(UnitFile.read(unit), _MUSTER, ["/usr/bin/python3", "-c", _ATTEMPTS])
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout.splitlines() == possible


def test_a_fleet_serves_under_its_units_and_ends_when_it_is_asked(shut_in):
    coordinator = shut_in.coordinator()
    workers = [shut_in.worker(coordinator, name) for name in ("w0", "w1")]
    await_that(lambda: _state(coordinator) == fleet_pb2.REPLICA_STATE_SERVING, shut_in.logs())
    answer = musterctl("forward", "--coordinator", coordinator.address, "--prompt-tokens", "1,2,3")
    assert answer.returncode == 0, answer.stderr
    for process in (*workers, coordinator.process):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(PATIENCE) for process in (*workers, coordinator.process)] == [0, 0, 0]


def test_workers_of_two_users_cannot_share_memory_and_say_so(shut_in):
    coordinator = shut_in.coordinator()
    shut_in.worker(coordinator, "w0")
    shut_in.worker(coordinator, "w1", user=_SOMEBODY_ELSE)
    await_that(lambda: "shared memory cannot be opened" in shut_in.logs(), "somebody says why")
    assert _state(coordinator) != fleet_pb2.REPLICA_STATE_SERVING
