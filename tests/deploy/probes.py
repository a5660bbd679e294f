"""The kubelet's probes over HTTP."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from rendered import Object, port_of


@dataclass(frozen=True)
class HttpProbe:
    """One probe of one container."""

    url: str
    period: float
    timeout: float
    failure_threshold: int

    @staticmethod
    def of(container: Object, kind: str, host: str) -> "HttpProbe":
        probe = container[kind]
        get = probe["httpGet"]
        return HttpProbe(f"http://{host}:{port_of(container, get['port'])}{get['path']}",
                         probe.get("periodSeconds", 10), probe.get("timeoutSeconds", 1),
                         probe.get("failureThreshold", 3))

    def complaint(self) -> str:
        """Why it fails; empty when it succeeds."""
        try:
            with urllib.request.urlopen(self.url, timeout=self.timeout):
                return ""
        except urllib.error.HTTPError as error:
            return f"{self.url}: {error.code} {error.read(300).decode(errors='replace').strip()}"
        except OSError as error:
            return f"{self.url}: {error}"


class ContainerProbes:
    """Watches a container in a thread of its own: startup, then readiness and liveness.

    Args:
      container: as it stands in the pod.
      host: the pod's address.
      restart: called once, with the reason, where a kubelet would restart the container.
    """

    def __init__(self, container: Object, host: str, restart: Callable[[str], None]):
        self._container = container
        self._host = host
        self._restart = restart
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ready = False
        self.complaint = "it has not started"
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _probe(self, kind: str) -> HttpProbe:
        return HttpProbe.of(self._container, kind, self._host)

    def _run(self) -> None:
        if "startupProbe" in self._container and not self._await_start():
            return
        readiness, liveness = self._probe("readinessProbe"), self._probe("livenessProbe")
        failures, next_liveness = 0, time.monotonic()
        while not self._ended.is_set():
            self.complaint = readiness.complaint()
            self.ready = not self.complaint
            if time.monotonic() >= next_liveness:
                next_liveness += liveness.period
                complaint = liveness.complaint()
                failures = failures + 1 if complaint else 0
                if failures == liveness.failure_threshold:
                    return self._restart(complaint)
            self._ended.wait(min(readiness.period, liveness.period))

    def _await_start(self) -> bool:
        startup = self._probe("startupProbe")
        for _ in range(startup.failure_threshold):
            self.complaint = startup.complaint()
            if not self.complaint:
                return True
            if self._ended.wait(startup.period):
                return False
        self._restart(self.complaint)
        return False
