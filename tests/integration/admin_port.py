"""What daemons answer on their admin ports."""

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from fleets import await_that

ADMIN = ("--admin-listen", "127.0.0.1:0")
# In the text exposition format: name, labels, value.
_SAMPLE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)')
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def admin_url(process: subprocess.Popen[bytes]) -> str:
    """Where a daemon, whose log is a file and not silent, answers by HTTP."""
    log = Path(os.readlink(f"/proc/{process.pid}/fd/2"))
    found = await_that(
        lambda: re.search(r"admin port on (127\.0\.0\.1:\d+)", log.read_text(errors="replace")),
        "the admin port is in the log")
    return f"http://{found[1]}"


def get(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@dataclass
class Family:
    """Metrics of one name."""

    kind: str
    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)

    @property
    def labels(self) -> set[str]:
        """Of all samples; "le" is the histogram's own."""
        return {name for _, labels, _ in self.samples for name in labels} - {"le"}

    def total(self, suffix: str = "", **wanted: str) -> float:
        """The sum of the samples whose name ends so and that have these labels."""
        return sum(value for name, labels, value in self.samples
                   if name.endswith(suffix) and wanted.items() <= labels.items())


def scrape(url: str) -> dict[str, Family]:
    """Families by name, read as strictly as Prometheus does."""
    status, text = get(f"{url}/metrics")
    assert status == 200, text
    families: dict[str, Family] = {}
    helped: set[str] = set()
    seen: dict[str, set[str]] = defaultdict(set)
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split(" ", 3)[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped and name not in families, line
            families[name] = Family(kind)
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert match["name"].startswith(name), f"{line} is not of {name}"
            labels = match["labels"] or ""
            assert (key := match["name"] + labels) not in seen[name], f"{line} is there twice"
            seen[name].add(key)
            families[name].samples.append(
                (match["name"], dict(_LABEL.findall(labels)), float(match["value"])))
    return families


def await_requests(leader: subprocess.Popen[bytes], count: int) -> None:
    """So many have come to it, and have no answer."""
    url = admin_url(leader)
    await_that(lambda: scrape(url)["muster_worker_requests_in_flight"].total() == count,
               f"{count} requests are in flight")
