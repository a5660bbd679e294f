"""A Prometheus that scrapes daemons of a test."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin_port import get
from fleets import await_that

MISSING = "prometheus and promtool are not installed (Debian: apt-get install prometheus)"


def is_installed() -> bool:
    return all(shutil.which(program) for program in ("prometheus", "promtool"))


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    address: str

    def api(self, path: str, **parameters: str) -> dict[str, Any]:
        """What the HTTP API answers; it must succeed."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
                f"http://{self.address}/api/v1/{path}?{query}", timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        data: dict[str, Any] = answer["data"]
        return data

    def values(self, expression: str) -> list[float]:
        """What an expression gives now, without those that are no number."""
        result = self.api("query", query=expression)["result"]
        values = [float(sample["value"][1]) for sample in result]
        return [value for value in values if value == value]


@contextmanager
def prometheus(directory: Path, rules: Path, targets: list[str]) -> Iterator[Prometheus]:
    """Scrapes `targets` ("host:port") every second, as job "muster", and evaluates `rules`."""
    config = directory / "prometheus.yml"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "muster", "static_configs": [{"targets": targets}]}]}))
    log = directory / "prometheus.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
             "--web.listen-address=127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        found = await_that(
            lambda: re.search(r'"Listening on" address=(\S+)', log.read_text(errors="replace")),
            "Prometheus listens")
        server = Prometheus(found[1])
        await_that(lambda: get(f"http://{server.address}/-/ready")[0] == 200, "Prometheus is ready")
        await_that(lambda: len(server.values("up == 1")) == len(targets), "all targets are up")
        yield server
    finally:
        process.terminate()
        process.wait(20)
