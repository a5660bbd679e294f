"""Metrics of daemons at work: what the document says, what dashboards and alerts are made of."""

import json
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from admin_port import ADMIN, Family, admin_url, get, scrape
from fleets import REPOSITORY, await_that
from prometheus_server import MISSING, is_installed, prometheus
from scaled_fleet import ScaledFleet, Text, scaled_fleet
from wire import Daemons

RULES = REPOSITORY / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = REPOSITORY / "deploy" / "dashboards" / "muster.json"
DOCUMENT = REPOSITORY / "docs" / "metrics.md"
OPERATIONS = REPOSITORY / "docs" / "operations.md"
# What the product promises.
LONGEST_SCRAPE_MS = 20.0
_ROW = re.compile(r"\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*)\|")

needs_prometheus = pytest.mark.skipif(not is_installed(), reason=MISSING)


@dataclass(frozen=True)
class Documented:
    """A row of docs/metrics.md."""

    kind: str
    labels: set[str]


def documented(*sections: str) -> dict[str, Documented]:
    text = DOCUMENT.read_text()
    rows: dict[str, Documented] = {}
    for section in sections:
        for row in _ROW.finditer(text[text.index(f"## {section}\n"):].split("\n## ")[0]):
            rows[row["name"]] = Documented(row["kind"], set(re.findall(r"`(\w+)`", row["labels"])))
    return rows


@pytest.fixture(scope="module")
def fleet(daemons: Daemons) -> Iterator[ScaledFleet]:
    """Two ranks and two standbys; all have an admin port."""
    words: dict[str, tuple[str, ...]] = {f"w{index}": ADMIN for index in range(4)}
    with scaled_fleet(daemons, words=words, coordinator_words=ADMIN) as fleet:
        yield fleet


@dataclass(frozen=True)
class Urls:
    """Of admin ports."""

    coordinator: str
    workers: dict[str, str]

    @property
    def leader(self) -> str:
        return self.workers["w0"]


@pytest.fixture(scope="module")
def urls(fleet: ScaledFleet) -> Urls:
    return Urls(admin_url(fleet.coordinator.process),
                {name: admin_url(process) for name, process in fleet.processes.items()})


def write(fleet: ScaledFleet, tokens: int = 4) -> None:
    with fleet.client.replica() as replica:
        text = Text(replica)
        text.write(tokens)
        text.free()


def exported_as_documented(exported: dict[str, Family], rows: dict[str, Documented]) -> None:
    assert set(exported) == set(rows)
    for name, family in exported.items():
        assert family.kind == rows[name].kind, name
        assert family.labels == rows[name].labels, name


def test_a_worker_exports_what_the_document_lists(fleet: ScaledFleet, urls: Urls) -> None:
    write(fleet)
    exported_as_documented(scrape(urls.leader), documented("Both daemons", "Worker"))


def test_a_coordinator_exports_what_the_document_lists(urls: Urls) -> None:
    exported_as_documented(scrape(urls.coordinator), documented("Both daemons", "Coordinator"))


def test_counters_follow_what_a_fleet_does(fleet: ScaledFleet, urls: Urls) -> None:
    before, behind = scrape(urls.leader), scrape(urls.workers["w1"])
    write(fleet, tokens=5)
    after = scrape(urls.leader)

    def grown(name: str, suffix: str = "", **labels: str) -> float:
        return after[name].total(suffix, **labels) - before[name].total(suffix, **labels)

    assert grown("muster_worker_tokens_total", kind="decode") == 4
    assert grown("muster_worker_tokens_total", kind="prefill") > 4
    assert grown("muster_worker_requests_total") == 5
    assert grown("muster_worker_steps_total", mode="graph") == 4
    assert grown("muster_worker_step_device_seconds", "_count") == 5
    assert grown("muster_worker_request_queue_seconds", "_count") == 5
    assert grown("muster_worker_collectives_total", operation="all-reduce-rms-norm") > 0
    assert grown("muster_worker_collective_bytes_total", operation="cp-combine") > 0
    follower = await_that(
        lambda: (now := scrape(urls.workers["w1"]))["muster_worker_steps_total"].total()
        - behind["muster_worker_steps_total"].total() == 5 and now, "the follower's steps")
    assert follower["muster_worker_requests_total"].total() == 0
    assert after["muster_worker_fused"].total(group="STAGE") == 1


def test_refusals_are_counted_by_their_reason(fleet: ScaledFleet, urls: Urls) -> None:
    before = scrape(urls.leader)["muster_errors_total"]
    fleet.ctl("forward", "--prompt-tokens", "999999999")
    after = scrape(urls.leader)["muster_errors_total"]
    assert after.total(reason="INVALID_REQUEST") > before.total(reason="INVALID_REQUEST")
    assert after.total(reason="RANK_LOST") == before.total(reason="RANK_LOST")


def test_a_resize_is_counted_by_the_coordinator_and_by_the_leader(
        fleet: ScaledFleet, urls: Urls) -> None:
    leader, coordinator = scrape(urls.leader), scrape(urls.coordinator)
    with fleet.client.replica() as replica:
        text = Text(replica)
        text.write(8)
        fleet.scale(4)
        now = scrape(urls.leader)
        moved = now["muster_worker_resize_kv_blocks_total"]
        assert moved.total() > leader["muster_worker_resize_kv_blocks_total"].total()
        text.free()
    pauses = now["muster_worker_resize_pause_seconds"].total("_count")
    assert pauses == leader["muster_worker_resize_pause_seconds"].total("_count") + 1
    done = scrape(urls.coordinator)["muster_coordinator_resizes_total"].total(outcome="done")
    assert done == coordinator["muster_coordinator_resizes_total"].total(outcome="done") + 1
    fleet.reset()


def test_a_scrape_is_short(fleet: ScaledFleet, urls: Urls) -> None:
    write(fleet)
    for name, url in (("leader", urls.leader), ("coordinator", urls.coordinator)):
        taken = []
        for _ in range(50):
            begun = time.perf_counter()
            status, text = get(f"{url}/metrics")
            taken.append((time.perf_counter() - begun) * 1e3)
            assert status == 200
        print(f"scrape of a {name}: {len(text):,} bytes, median "
              f"{statistics.median(taken):.2f} ms, longest {max(taken):.2f} ms")
        assert statistics.median(taken) <= LONGEST_SCRAPE_MS


@needs_prometheus
def test_the_alerts_fire_when_they_should() -> None:
    for words in (("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")):
        result = subprocess.run(["promtool", *words], cwd=RULES.parent, capture_output=True,
                                text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_paragraph_to_act_by() -> None:
    rules = RULES.read_text()
    alerts = re.findall(r"^  - alert: (\w+)$", rules, re.MULTILINE)
    runbooks = re.findall(r"^ +runbook: docs/operations\.md#(\S+)$", rules, re.MULTILINE)
    assert len(alerts) > 5
    assert runbooks == [alert.lower() for alert in alerts]
    text = OPERATIONS.read_text()
    for alert in alerts:
        paragraph = text[text.index(f"### {alert}\n"):].split("\n#")[0]
        assert len(paragraph) > 100, alert


def dashboard_queries() -> dict[str, str]:
    """By title and legend; variables have the value that stands for all."""
    queries = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "30s").replace("$job", ".*")
            assert "$" not in expression
            queries[f"{panel['title']}: {target['legendFormat']}"] = expression
    return queries


@needs_prometheus
def test_every_query_of_the_dashboard_has_data_from_a_fleet(
        fleet: ScaledFleet, urls: Urls, tmp_path: Path) -> None:
    queries = dashboard_queries()
    assert len(queries) > 20
    targets = [url.removeprefix("http://") for url in (urls.coordinator, *urls.workers.values())]
    with prometheus(tmp_path, RULES, targets) as server:
        scales = iter((4, 2) * 100)
        fleet.ctl("forward", "--prompt-tokens", "999999999")

        def silent() -> list[str]:
            write(fleet, tokens=8)
            fleet.scale(next(scales))
            return [title for title, query in queries.items() if not server.values(query)]

        await_that(lambda: not silent(), "every query has data")
        groups = server.api("rules")["groups"]
        assert [rule["name"] for group in groups for rule in group["rules"]
                if rule["health"] != "ok"] == []
        firing = {alert["labels"]["alertname"] for alert in server.api("alerts")["alerts"]}
        assert not firing & {"MusterInsecure", "MusterTargetDown", "MusterReplicaNotServing"}
    fleet.reset()
