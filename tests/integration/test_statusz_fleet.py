"""/statusz of daemons at work, in a browser.

With MUSTER_SCREENSHOTS=DIR it leaves there what docs/statusz.md shows.
"""

import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from admin_port import ADMIN, admin_url
from browser import Browser
from fleets import MODELS, await_that
from muster.replica import Replica
from PIL import Image
from scaled_fleet import MODEL, PROMPT, Load, ScaledFleet, Text, scaled_fleet
from statusz_pages import page_and_policy

# One that no shell, no log and no page may take for more than a name.
HOSTILE_MODEL = """<img src=x onerror="document.title='pwned'">&amp;"""


def answer_of(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/statusz.json", timeout=10) as response:
        assert response.headers["Content-Type"] == "application/json"
        return json.load(response)


@pytest.fixture(scope="module")
def fleet(daemons) -> Iterator[ScaledFleet]:
    """Two ranks, two standbys; the second standby stops when it first warms up."""
    words: dict[str, tuple[str, ...]] = {name: ADMIN for name in ("w0", "w1", "w2")}
    words["w3"] = ("--fault", "stop@warmup/exchange")
    with scaled_fleet(daemons, words=words, coordinator_words=ADMIN) as fleet:
        yield fleet


def open_page(page: Browser, url: str) -> None:
    page.open(f"{url}/statusz")
    page.await_that("document.body?.dataset.fresh === 'yes'", "the first answer is drawn")
    assert {it.rsplit("/", 1)[1] for it in page.requests() if it.startswith("http")} == {
        "statusz", "statusz.json"}


def shrink(path: Path) -> None:
    """Keeps the 256 most frequent colours, which are all of the flat ones."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    colours, where, counts = np.unique(
        pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    kept = colours[np.argsort(counts)[::-1][:256]].astype(int)
    nearest = np.array([((kept - colour) ** 2).sum(axis=1).argmin() for colour in colours])
    picture = Image.fromarray(nearest[where].reshape(pixels.shape[:2]).astype(np.uint8), "P")
    picture.putpalette(kept.astype(np.uint8).tobytes())
    picture.save(path, optimize=True)


def keep_picture(page: Browser, name: str, width: int = 1400, dark: bool = False) -> None:
    directory = os.environ.get("MUSTER_SCREENSHOTS")
    if directory is None:
        return
    page.look(width, dark=dark)
    path = Path(directory) / f"{name}.png"
    page.screenshot(path)
    shrink(path)
    page.look(1400)


def fill(replica: Replica) -> None:
    """Sequences of many lengths, which hold a part of the cache."""
    for index in range(13):
        Text(replica, (PROMPT * 60)[:180 + 22 * index]).write(2)


def coordinator_url(fleet: ScaledFleet) -> str:
    return admin_url(fleet.coordinator.process)


def test_what_is_served_is_the_page_with_its_policy(fleet):
    page, policy = page_and_policy()
    with urllib.request.urlopen(f"{coordinator_url(fleet)}/statusz", timeout=10) as response:
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Content-Security-Policy"] == policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.read().decode() == page


def test_the_json_says_what_musterctl_says(fleet):
    answer = answer_of(coordinator_url(fleet))
    status = fleet.ctl_json("status")
    assert answer["config"] == status["config"] and answer["term"] == status["term"]
    for shown, told in zip(answer["replicas"], status["replicas"], strict=True):
        assert shown["topology"] == told["topology"]
        assert shown["ledgers"] == told["ledgers"]
    assert [it["worker_id"] for it in answer["workers"]] == ["w0", "w1", "w2", "w3"]
    assert answer["workers"][0].keys() == status["workers"][0].keys()
    assert answer["model"]["name"] == MODEL
    sequences = [event["sequence"] for event in answer["events"]]
    assert sequences == sorted(sequences, reverse=True)


def test_a_fleet_at_work_is_seen_at_work_and_in_its_change_of_shape(page, fleet):
    with ExitStack() as stack:
        replica = stack.enter_context(fleet.client.replica())
        fill(replica)
        stack.enter_context(Load(fleet))
        open_page(page, coordinator_url(fleet))
        page.await_that("/KV [1-9]/.test(document.querySelector('.rank').innerText)", "KV is held")
        page.await_that("/Tokens\\/s\\n[1-9]/.test(document.querySelector('#summary').innerText)",
                        "tokens are counted")
        assert len(page.texts(".rank")) == 2
        assert sorted(page.texts("#idle-list li b")) == ["w2", "w3"]
        keep_picture(page, "statusz-phone", width=390)

        fleet.ctl_json("scale-cp", "4", "--no-wait", "--request-id", "grow")
        page.await_that("document.querySelectorAll('.epoch').length === 2", "both are drawn")
        page.await_that("""[...document.querySelectorAll('.epoch:last-child .rank')].every(
            (it) => it.innerText.includes('warmup/'))""", "they wait for the one that stops")
        assert page.text(".resize strong") == "cp 2 to 4"
        assert page.text(".resize li[aria-current]") == "prepare"
        assert ["stays" in it for it in page.texts(".epoch:last-child .rank")] == [
            True, True, False, False]
        keep_picture(page, "statusz-resize")
        os.kill(fleet.processes["w3"].pid, signal.SIGCONT)

        page.await_that("document.querySelectorAll('.rank').length === 4", "the new epoch serves")
        page.await_that("document.querySelector('#operation-list .state')?.innerText"
                        ".includes('done')", "the operation has ended")
        assert "prepare" in page.text("#operation-list") and "pause" in page.text("#operation-list")


def test_six_ranks_lie_in_the_grid_of_their_groups(page, daemons):
    words: dict[str, tuple[str, ...]] = {f"w{index}": ADMIN for index in range(7)}
    with ExitStack() as stack:
        fleet = stack.enter_context(scaled_fleet(
            daemons, workers=7, resize_range="1:2", words=words, kv_memory="1MiB",
            coordinator_words=(*ADMIN, "--tp", "3")))
        replica = stack.enter_context(fleet.client.replica())
        fill(replica)
        stack.enter_context(Load(fleet))
        open_page(page, coordinator_url(fleet))
        page.await_that("/KV [1-9]/.test(document.querySelector('.rank').innerText)", "KV is held")
        page.await_that("/Tokens\\/s\\n[1-9]/.test(document.querySelector('#summary').innerText)",
                        "tokens are counted")
        assert page.texts(".heads .axis") == ["tp 0", "tp 1", "tp 2"]
        assert page.texts(".row > .axis") == ["cp 0", "cp 1"]
        page.point_at(".row:last-child .rank:nth-child(2)")
        page.await_that("document.querySelector('.rank[data-tp]')", "the groups are shown")
        assert page.text(".groups").split("\n")[1:3] == ["TP 3, 4, 5", "CP 1, 4"]
        keep_picture(page, "statusz-serving")
        keep_picture(page, "statusz-serving-dark", dark=True)


def test_a_worker_shows_itself(page, fleet):
    url = admin_url(fleet.processes["w1"])
    open_page(page, url)
    assert page.text("h1") == "Muster worker w1"
    assert "w1" in page.text(".rank[data-own]")
    assert page.texts(".buckets li") == ["32", "16", "8", "4", "2", "1"]
    assert "weights" in page.text("#ledger")
    (epoch,) = answer_of(url)["epochs"]
    assert (epoch["rank"], epoch["state"]) == (1, "SERVING")
    assert epoch["topology"] == answer_of(coordinator_url(fleet))["replicas"][0]["topology"]


def test_a_rank_that_is_lost_is_seen_to_be(page, fleet):
    open_page(page, coordinator_url(fleet))
    assert len(page.texts(".rank")) == 4
    fleet.processes["w3"].kill()
    page.await_that("document.querySelector('.trouble li')", "the page says that it failed")
    page.await_that("document.querySelectorAll('.trouble li').length === 2", "and waits")
    assert "rank 3 (worker w3) was lost" in page.text(".trouble")
    assert "4 needed" in page.text(".trouble")
    lost = page.texts(".rank[data-tone=bad]")
    assert len(lost) == 1 and "w3" in lost[0] and "lost" in lost[0]
    keep_picture(page, "statusz-failed")


def test_the_name_of_a_model_is_text(page, daemons, tmp_path):
    model = Path(shutil.copytree(MODELS / "llama-mha12", tmp_path / HOSTILE_MODEL))
    coordinator = daemons.coordinator(1, *ADMIN)
    worker = daemons.worker(coordinator, "w0", model, words=ADMIN)
    await_that(lambda: coordinator.workers(), "the worker is enlisted")
    for process in (coordinator.process, worker):
        open_page(page, admin_url(process))
        assert HOSTILE_MODEL in page.text("#model-facts")
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.evaluate("document.title") != "pwned"
