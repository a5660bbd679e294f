"""/statusz in a browser: what it draws of every state, for whom, and what it never does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from fleets import await_that
from statusz_pages import (
    PageServer,
    event_json,
    failed_json,
    fleet_json,
    operation_json,
    resizing_json,
    topology_json,
    worker_json,
    worker_page_json,
)

HOSTILE = """<script>document.title='pwned'</script><img src=x onerror="alert(1)">'"&amp;"""
LOOKS = [(1400, False), (1400, True), (390, False), (390, True)]


@pytest.fixture
def server() -> Iterator[PageServer]:
    it = PageServer()
    yield it
    it.close()


def show(page: Browser, server: PageServer, answer: dict) -> None:
    server.answer = answer
    page.open(server.url)
    page.await_that("document.body?.dataset.fresh === 'yes'", "the first answer is drawn")


def ranks(page: Browser) -> list[str]:
    """What the ranks say of themselves, one line each."""
    return [" ".join(text.split()) for text in page.texts(".rank")]


# --- What is drawn.

@pytest.mark.parametrize("width, dark", LOOKS)
def test_a_serving_fleet_is_drawn_within_the_window(page, server, width, dark):
    page.look(width, dark=dark)
    show(page, server, fleet_json(2, 2, standbys=1))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("""[...document.querySelectorAll("main *")].filter(
        it => it.getBoundingClientRect().right > innerWidth && !it.closest(".scroll"))
        .map(it => it.className)""") == []
    assert len(ranks(page)) == 4
    for part in ("0 leader", "serving", "w0", "cpu:0 on 10.0.0.1", "KV 48 %", "700 of 1,456"):
        assert part in ranks(page)[0]
    assert page.text("#summary").split("\n")[:4] == ["State", "serving", "Topology", "tp 2 × cp 2"]
    assert "standby" in page.text("#idle-list")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(it) for it in re.findall(r"\d+", ground)]
    assert max(channels) < 60 if dark else min(channels) > 200


@pytest.mark.parametrize("width, dark", LOOKS)
def test_all_text_has_contrast(page, server, width, dark):
    page.look(width, dark=dark)
    for answer in (fleet_json(1, 2, standbys=1), resizing_json(), failed_json()):
        answer["daemon"]["insecure"] = "plaintext on 0.0.0.0:7600"
        show(page, server, answer)
        assert page.evaluate(_LOW_CONTRASTS) == []


def test_a_rank_has_the_focus_and_shows_its_groups_by_name(page, server):
    show(page, server, fleet_json(2, 3))
    page.evaluate("document.querySelector('#main').focus()")
    page.press("Tab")
    page.await_that("document.querySelector('.rank[data-cp]')", "the groups are shown")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused.startswith("Rank 0, leader, worker w0, cpu:0 on 10.0.0.1, serving, KV 48 %")
    assert "TP group of ranks 0, 1, CP group of ranks 0, 2, 4" in focused
    assert _marked(page, "data-tp") == [0, 1]
    assert _marked(page, "data-cp") == [0, 2, 4]
    assert _marked(page, "data-aside") == [3, 5]
    assert page.text(".groups").replace("\n", " ").endswith("TP 0, 1 CP 0, 2, 4 STAGE 0–5")
    page.press("Tab")
    page.await_that("document.activeElement.facts.rank !== 0", "the next rank has the focus")


def test_the_groups_of_a_rank_show_under_the_pointer_and_outlive_a_poll(page, server):
    show(page, server, fleet_json(2, 2))
    page.point_at(".row:last-child .rank:last-child")
    page.await_that("document.querySelector('.rank[data-tp]')", "the groups are shown")
    assert (_marked(page, "data-tp"), _marked(page, "data-cp")) == ([2, 3], [1, 3])
    asked = server.asked
    await_that(lambda: server.asked > asked + 1 or page.wait_for_event(0.05), "it asks again")
    assert _marked(page, "data-tp") == [2, 3]
    assert _shown(page, ".tag.tp") == 2


def test_stages_and_replicas_stand_by_themselves(page, server):
    fleet = fleet_json(1, 2, pp=2)
    second = topology_json(1, 1, 2, replica=1, first_worker=4)
    fleet["replicas"].append({"replica": 1, "state": "FORMING", "topology": second,
                              "phases_ms": {}, "ledgers": []})
    fleet["workers"].append(worker_json(
        "w4", state="ASSIGNED", replica=1, rank=0, epoch=1,
        progress={"phase": "load", "done": 3 << 20, "total": 12 << 20, "unit": "bytes"}))
    show(page, server, fleet)
    assert page.texts(".stage > h4") == ["Stage 0, ranks 0, 1", "Stage 1, ranks 2, 3",
                                         "Stage 0, ranks 0, 1"]
    assert page.texts(".replica > header .state span:last-child") == ["serving", "forming"]
    forming = page.text(".replica:last-child .rank")
    assert "load" in forming and "3.0 MiB of 12 MiB" in forming
    assert "forming (1 of 2)" in page.text("#summary")


def test_a_change_of_shape_shows_both_epochs_and_how_far_each_rank_is(page, server):
    show(page, server, resizing_json())
    assert [it.split("\n")[:2] for it in page.texts(".epoch > h3")] == [
        ["Epoch 3", "serves"], ["Epoch 4", "is prepared"]]
    assert page.text(".resize li[aria-current]") == "prepare"
    drawn = ranks(page)
    assert len(drawn) == 6
    assert "serving" in drawn[0] and "KV 48 %" in drawn[0]
    assert "stays" in drawn[2] and "warmup/self-test 1 of 2 groups" in drawn[2]
    assert "joins" in drawn[4] and "71 MiB of 144 MiB" in drawn[4]
    assert "resizing" in page.text("#summary")


def test_a_lost_rank_is_named_with_its_reason(page, server):
    show(page, server, failed_json())
    assert "rank 1 (worker w1) was lost in serving: its connection broke" in page.text(".trouble")
    lost = ranks(page)[1]
    assert "✕ lost" in lost and "w1" in lost
    assert page.evaluate("document.querySelector('.trouble').getAttribute('role')") == "alert"
    assert page.evaluate("document.title").startswith("failed")


def test_a_replica_that_waits_says_for_what(page, server):
    fleet = fleet_json()
    fleet["replicas"] = [{"replica": 0, "state": "WAITING", "phases_ms": {}, "ledgers": [],
                          "failure": {"code": 9, "message": "2 needed, 1 free", "detail": {
                              "epoch": 0, "ranks": [], "workers": []}}}]
    fleet["workers"] = [worker_json("w0"), worker_json("w1", drained=True)]
    fleet["model"] = None
    show(page, server, fleet)
    assert "2 needed, 1 free" in page.text(".trouble")
    idle = [" ".join(it.split()) for it in page.texts("#idle-list li")]
    assert idle[0].startswith("w0 ○ standby") and idle[1].startswith("w1 ▲ drained")
    assert _shown(page, "#memory, #graphs, #model, #operations") == 0


def test_memory_graphs_and_history_are_there_in_numbers(page, server):
    fleet = fleet_json(1, 2)
    fleet["replicas"][0]["ledgers"][1]["bytes"]["weights"] = 100 << 20
    fleet["operations"] = [operation_json("DONE", "DONE"),
                           operation_json("ROLLED_BACK", "ROLLED_BACK", "op0")]
    fleet["operations"][1]["failure"] = {"code": 4, "message": "w3 was late", "detail": {}}
    show(page, server, fleet)
    rows = [it.split("\t") for it in page.texts("#ledger tbody tr")]
    assert [it.strip() for it in rows[0]] == ["weights", "100 MiB – 144 MiB", "244 MiB"]
    assert "workspace/STAGE+CP" in page.text("#ledger")
    assert page.texts(".buckets li") == ["32", "16", "8", "4", "2", "1"]
    done, undone = page.texts("#operation-list > li")
    assert "prepare 1.1 s, pause 4 ms, 21 KV blocks moved (3.2 MiB), 20 kept" in done
    assert "w3 was late" in undone
    assert "worker enlisted" in page.text("#event-list li:last-child")


def test_plaintext_that_others_can_reach_is_loud(page, server):
    fleet = fleet_json()
    show(page, server, fleet)
    assert _shown(page, "#insecure") == 0
    fleet["daemon"]["insecure"] = "plaintext on 0.0.0.0:7600: whoever reaches it can do everything"
    show(page, server, fleet)
    assert page.text("#insecure") == (
        "▲ Insecure: plaintext on 0.0.0.0:7600: whoever reaches it can do everything.")


def test_a_worker_shows_itself_among_the_others(page, server):
    show(page, server, worker_page_json())
    assert page.text("h1") == "Muster worker w1"
    drawn = page.evaluate("document.querySelectorAll('.rank[data-own]').length")
    assert drawn == 1 and "KV 25 %" in page.text(".rank[data-own]")
    assert len(ranks(page)) == 4
    assert _shown(page, "#events, #operations, #idle") == 0
    answer = worker_page_json()
    answer["epochs"] = []
    show(page, server, answer)
    assert page.text("#idle-list li b") == "w1" and "standby" in page.text("#summary")


# --- What it never does.

def test_whatever_a_daemon_says_is_text(page, server):
    fleet = resizing_json()
    fleet["workers"][0]["worker_id"] = HOSTILE
    fleet["workers"].append(worker_json(HOSTILE + "2", HOSTILE))
    fleet["workers"][1]["device"]["name"] = fleet["workers"][1]["device"]["kind"] = HOSTILE
    for topology in (fleet["replicas"][0]["topology"], fleet["replicas"][0]["next"]):
        topology["ranks"][0] |= {"worker_id": HOSTILE, "address": HOSTILE}
    fleet["replicas"][0]["ledgers"][0]["bytes"] = {HOSTILE: 5}
    fleet["model"] |= {"name": HOSTILE, "architecture": HOSTILE, "dtype": HOSTILE}
    fleet["daemon"] |= {"name": HOSTILE, "insecure": HOSTILE, "address": HOSTILE}
    fleet["operations"][0]["summary"] = HOSTILE
    fleet["operations"].append(operation_json("FAILED", "FAILED", HOSTILE))
    fleet["operations"][1]["failure"] = {"code": 2, "message": HOSTILE, "detail": {}}
    fleet["events"].append(event_json(9, HOSTILE, HOSTILE, worker_id=HOSTILE, phase=HOSTILE))
    show(page, server, fleet)
    for place in (".worker", "#model-facts", "#insecure", ".resize strong", "#ledger", "h1",
                  "#event-list li:last-child p", "#operation-list .why:not([hidden])",
                  "#idle-list li:last-child b"):
        assert HOSTILE in page.text(place), place
    assert page.evaluate("document.querySelectorAll('main script, img, iframe').length") == 0
    assert page.evaluate("document.title") != "pwned"


def test_scripts_styles_and_connections_of_others_are_refused(shared_browser, server):
    shared_browser.events.clear()
    show(shared_browser, server, fleet_json())
    refused = shared_browser.evaluate("""(async () => {
        const refused = [];
        addEventListener("securitypolicyviolation", (it) => refused.push(it.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "document.title = 'pwned'";
        document.head.append(script);
        const style = document.createElement("style");
        style.textContent = "body { display: none }";
        document.head.append(style);
        document.body.setAttribute("style", "display: none");
        await fetch("http://127.0.0.1:1/").catch(() => null);
        await new Promise((done) => setTimeout(done));
        return refused;
    })()""")
    assert set(refused) == {"script-src-elem", "style-src-elem", "style-src-attr", "connect-src"}
    assert shared_browser.evaluate("document.title") != "pwned"
    assert shared_browser.evaluate("getComputedStyle(document.body).display") == "block"


# --- Polling.

def test_polling_brings_the_page_up_to_date_and_keeps_its_nodes(page, server):
    show(page, server, fleet_json())
    page.evaluate("document.querySelector('.rank').mark = 'kept'")
    later = fleet_json()
    later["workers"][0] |= {"kv_blocks_used": 1456, "tokens": 2204}
    later["daemon"]["time"] = "2026-03-01T12:00:10.000Z"
    server.answer = later
    page.await_that("document.querySelector('.rank').innerText.includes('KV 100 %')", "it polls")
    assert page.evaluate("document.querySelector('.rank').mark") == "kept"
    assert "Tokens/s\n100" in page.text("#summary")


@pytest.mark.parametrize("answer, status, why", [
    ({}, 503, "the answer is HTTP 503"), ("<html>", 200, "the answer is no JSON")])
def test_a_page_that_is_not_current_says_so_and_recovers(shared_browser, server, answer, status,
                                                         why):
    page = shared_browser
    show(page, server, fleet_json())
    server.answer, server.status = answer, status
    page.await_that("!document.querySelector('#stale').hidden", "it says so")
    assert why in page.text("#stale") and "Asking again" in page.text("#stale")
    assert re.search(r"What you see is \d", page.text("#stale"))
    assert page.text("#live") == "not current" and len(ranks(page)) == 2
    server.answer, server.status = fleet_json(), 200
    page.await_that("document.querySelector('#stale').hidden", "it is current again")
    assert page.text("#live") == "live"


def test_a_daemon_that_is_gone_is_asked_ever_less(shared_browser):
    server = PageServer()
    show(shared_browser, server, fleet_json())
    server.close()
    shared_browser.await_that("document.querySelector('#stale-why').innerText.includes("
                              "'no connection')", "it says so")
    pauses = shared_browser.evaluate(
        "[1, 2, 3, 4, 5, 20].map((it) => { polling.failures = it; return pause(); })")
    assert pauses == [2000, 4000, 8000, 16000, 30000, 30000]


def test_a_page_that_nobody_sees_asks_seldom_and_at_once_when_it_is_seen(page, server):
    show(page, server, fleet_json())
    hidden = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => %s})"
    page.evaluate(hidden % "true")
    page.await_that("polling.next - performance.now() > 20000", "the next answer can wait")
    asked = server.asked
    page.evaluate(hidden % "false")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await_that(lambda: server.asked > asked or page.wait_for_event(0.01), "it asks at once", 10)
    page.await_that("polling.next - performance.now() <= 1000", "and every second again")


def _marked(page: Browser, attribute: str) -> list[int]:
    return page.evaluate(
        f"[...document.querySelectorAll('.rank[{attribute}]')].map(it => it.facts.rank).sort()")


def _shown(page: Browser, selector: str) -> int:
    """How many of the elements have a place on the page."""
    return page.evaluate(f"""[...document.querySelectorAll({selector!r})].filter(
        it => it.getClientRects().length > 0).length""")


# Texts whose contrast with what is behind them is below 4.5, as WCAG has it.
_LOW_CONTRASTS = """(() => {
    const channels = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const linear = (value) => value <= 0.03928 * 255
        ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([red, green, blue]) =>
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const [red, green, blue, alpha = 1] = channels(getComputedStyle(node).backgroundColor);
            if (alpha > 0) return [red, green, blue];
        }
    };
    const low = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
        if (!own || node.getClientRects().length === 0) continue;
        const [a, b] = [channels(getComputedStyle(node).color), ground(node)].map(luminance);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) low.push(`${node.innerText}: ${contrast.toFixed(2)}`);
    }
    return low;
})()"""


def test_the_browser_is_one_that_draws(page, server, tmp_path: Path):
    show(page, server, fleet_json())
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
