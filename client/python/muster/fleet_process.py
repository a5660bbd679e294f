"""A fleet on this machine that ends with this program."""

import json
import os
import queue
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

_REPOSITORY = Path(__file__).resolve().parents[3]
# musterctl allows its daemons a little more than a second.
_STOP_SECONDS = 3.0


class FleetError(Exception):
    """The fleet cannot be started, or has failed; the text tells a person why."""


@dataclass(frozen=True)
class FleetOptions:
    """What `musterctl up` is asked for; `extra` holds further arguments.

    Attributes:
      device: "auto", "cpu", "cuda", "cuda:N" or "cuda:UUID".
      oversubscribe: workers that share a GPU.
      load_format: "auto", "safetensors" or "dummy".
      memory_fraction: of a GPU's memory, for all of its workers.
      tls: talk by TLS; the event "serving" names the folders of clients' certificates.
    """

    model: Path
    tp: int = 1
    cp: int = 2
    replicas: int = 1
    threads: int | None = None
    dtype: str = "auto"
    no_fusion: bool = False
    no_graphs: bool = False
    extra: tuple[str, ...] = ()
    device: str | None = None
    oversubscribe: int | None = None
    load_format: str | None = None
    memory_fraction: float | None = None
    tls: bool = False

    def arguments(self) -> list[str]:
        words = [
            "--model", str(self.model), "--tp", str(self.tp), "--cp", str(self.cp), "--replicas",
            str(self.replicas), "--dtype", self.dtype]
        for flag, value in (
                ("--threads", self.threads), ("--device", self.device),
                ("--oversubscribe", self.oversubscribe), ("--load-format", self.load_format),
                ("--memory-fraction", self.memory_fraction)):
            if value is not None:
                words += [flag, str(value)]
        words += ["--no-fusion"] * self.no_fusion + ["--no-graphs"] * self.no_graphs
        words += ["--tls"] * self.tls
        return words + list(self.extra)


def bin_directory() -> Path:
    """Where the daemons and musterctl are: $MUSTER_BIN_DIR, or out/bin of the checkout."""
    return Path(os.environ.get("MUSTER_BIN_DIR") or _REPOSITORY / "out" / "bin")


class FleetProcess:
    """`musterctl up` as a child: it ends when this object is left, or this process dies.

    Start it in the main thread: the kernel ends the child with the thread that started it.
    """

    def __init__(self, options: FleetOptions, display: TextIO | None = None):
        """Starts the fleet.

        Args:
          options: of the fleet.
          display: where people are shown what happens; None: nowhere.

        Raises:
          FleetError: there is no musterctl.
        """
        program = bin_directory() / "musterctl"
        command = [
            str(program), "--json", "up", "--die-with-parent", "--parent", str(os.getpid()),
            *options.arguments()]
        if display is not None:
            command.append("--show")
            display.flush()
        try:
            # A process group of its own: a Ctrl-C of the terminal is for this program alone.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=display if display is not None else subprocess.DEVNULL, text=True,
                encoding="utf-8", errors="replace",
                process_group=0)
        except OSError as error:
            raise FleetError(f"cannot run {program}: {error.strerror}: ./muster build makes it") \
                from None
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "FleetProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_event(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next line of `musterctl up --json`; None when it has ended.

        Raises:
          TimeoutError: nothing happened for `timeout` seconds.
        """
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"the fleet said nothing for {timeout} s") from None

    def await_event(self, name: str, timeout: float | None = None) -> dict[str, Any]:
        """Reads events up to the one called `name`, and returns it.

        Args:
          name: e.g. "serving"; see musterctl's UpEvents.
          timeout: longest silence in seconds.

        Raises:
          FleetError: the fleet failed, or ended without it.
        """
        while (event := self.next_event(timeout)) is not None:
            if event["event"] == name:
                return event
            if event["event"] == "failed":
                raise FleetError(event["message"])
        status = self._process.wait()
        raise FleetError(f"musterctl up ended with status {status}")

    def stop(self) -> None:
        """Ends the fleet, and returns when nothing of it is left."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # The kernel then ends its children.
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._output.close()

    def _read(self) -> None:
        try:
            for line in self._output:
                self._events.put(json.loads(line))
        except ValueError:
            pass  # It died in the middle of a line.
        finally:
            self._events.put(None)
