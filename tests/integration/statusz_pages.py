"""/statusz without a daemon: the page as it is embedded, and answers that a test makes up."""

import copy
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fleets import REPOSITORY

Json = dict[str, Any]

PAGE = REPOSITORY / "base" / "admin" / "statusz"
NOW = "2026-03-01T12:00:00.000Z"
LEDGER = {
    "weights": 144 << 20, "kv": 512 << 20, "workspace/STAGE+CP": 520 << 10, "graphs": 268 << 10,
    "activations": 21 << 20, "relay": 228 << 10, "resize reserve": 248 << 20,
    "sampling": 672 << 10}
BUCKETS = [32, 16, 8, 4, 2, 1]


def page_and_policy() -> tuple[str, str]:
    """What the daemons serve: put together by the same program, of the same parts."""
    build = (PAGE / "BUILD.bazel").read_text()
    names = re.search(r"_PAGE = \[(.*?)\]", build, re.DOTALL)
    assert names is not None
    parts = [str(PAGE / name) for name in re.findall(r'"(.+?)"', names[1])]
    with TemporaryDirectory() as directory:
        page, policy = Path(directory, "page"), Path(directory, "policy")
        subprocess.run([sys.executable, str(PAGE / "embed_page.py"), "--html", str(page),
                        "--policy", str(policy), *parts], check=True)
        return page.read_text(), policy.read_text()


class PageServer:
    """Serves the page, and `answer` as /statusz.json."""

    def __init__(self, answer: Json | None = None):
        self.answer: Json | str = answer or {}
        self.status = 200
        self.asked = 0
        page, policy = page_and_policy()
        self._page, self._policy = page.encode(), policy
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/statusz"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        status, kind, body = 404, "text/plain", b""
        if request.path == "/statusz":
            status, kind, body = 200, "text/html; charset=utf-8", self._page
        elif request.path == "/statusz.json":
            self.asked += 1
            text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
            status, kind, body = self.status, "application/json", text.encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Content-Security-Policy", self._policy)
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# --- Fleets, with the names of `musterctl --json`.

def _groups(tp: int, cp: int, pp: int) -> list[Json]:
    stage = tp * cp
    groups: list[Json] = []
    for first in range(0, pp * stage, stage):
        groups.append({"kind": "STAGE", "ranks": [*range(first, first + stage)]})
        groups += [{"kind": "TP", "ranks": [*range(first + at * tp, first + (at + 1) * tp)]}
                   for at in range(cp)]
        groups += [{"kind": "CP", "ranks": [*range(first + at, first + stage, tp)]}
                   for at in range(tp)]
    return groups


def topology_json(epoch: int, tp: int, cp: int, pp: int = 1, replica: int = 0,
                  first_worker: int = 0) -> Json:
    """Workers w0, w1, .. at the ranks."""
    ranks = [{"rank": rank, "pp_rank": rank // (tp * cp), "cp_rank": rank // tp % cp,
              "tp_rank": rank % tp, "worker_id": f"w{first_worker + rank}",
              "address": f"10.0.0.{1 + (first_worker + rank) // 4}:{7600 + rank}"}
             for rank in range(tp * cp * pp)]
    return {"replica": replica, "epoch": epoch, "term": 1,
            "config": {"tp": tp, "cp": cp, "pp": pp, "replicas": 1}, "ranks": ranks,
            "groups": _groups(tp, cp, pp)}


def worker_json(name: str, address: str = "10.0.0.9:7600", **fields: Any) -> Json:
    return {"worker_id": name, "address": address,
            "device": {"kind": "cpu", "ordinal": 0, "name": "a processor", "threads": 2,
                       "total_bytes": 64 << 30, "free_bytes": 32 << 30},
            "build": "0.1.0", "model": "SmolLM2-135M-Instruct", "state": "ENLISTED", "epoch": 0,
            "drained": False, "progress": {"phase": "", "done": 0, "total": 0, "unit": ""},
            "heartbeat_age_ms": 112.4, "step": 0, "tokens": 0, "queued_requests": 0,
            "kv_blocks_used": 0, "kv_blocks_total": 0, **fields}


def _ranked_workers(topology: Json) -> list[Json]:
    return [worker_json(rank["worker_id"], rank["address"], state="SERVING",
                        replica=topology["replica"], rank=rank["rank"], epoch=topology["epoch"],
                        step=918204, tokens=1204 if rank["rank"] == 0 else 0,
                        kv_blocks_used=700 + 19 * rank["rank"], kv_blocks_total=1456)
            for rank in topology["ranks"]]


def event_json(sequence: int, kind: str, message: str, **fields: Any) -> Json:
    return {"sequence": sequence, "time": "2026-03-01T11:59:30Z", "kind": kind, "message": message,
            **fields}


def fleet_json(tp: int = 1, cp: int = 2, pp: int = 1, standbys: int = 0) -> Json:
    """A replica that serves."""
    topology = topology_json(3, tp, cp, pp)
    ledgers = [{"rank": rank["rank"], "bytes": dict(LEDGER), "kv_blocks": 1456,
                "block_tokens": 16, "buckets": BUCKETS} for rank in topology["ranks"]]
    replica = {"replica": 0, "state": "SERVING", "topology": topology,
               "phases_ms": {"load": 301.2, "warmup": 6.1, "capture": 480.0}, "ledgers": ledgers,
               "serving_since": "2026-03-01T08:48:00Z"}
    idle = [worker_json(f"s{index}") for index in range(standbys)]
    return {"daemon": {"role": "coordinator", "name": "", "address": "127.0.0.1:7600",
                       "build": "0.1.0", "insecure": "", "time": NOW, "uptime_ms": 11520000},
            "term": 1, "config": {"tp": tp, "cp": cp, "pp": pp, "replicas": 1},
            "model": {"name": "SmolLM2-135M-Instruct", "architecture": "LlamaForCausalLM",
                      "layers": 30, "hidden": 576, "heads": 9, "kv_heads": 3, "head_dim": 64,
                      "ffn": 1536, "vocabulary": 49152, "max_positions": 8192,
                      "dtype": "bfloat16", "weight_bytes": 269 << 20, "digest": "",
                      "eos_token_ids": [2]},
            "replicas": [replica], "workers": _ranked_workers(topology) + idle, "operations": [],
            "events": [event_json(2, "SERVING", "replica 0 serves epoch 3", replica=0, epoch=3),
                       event_json(1, "WORKER_ENLISTED", "w0 at 10.0.0.1:7600", worker_id="w0")]}


def resizing_json() -> Json:
    """From cp 2 to 4 with two standbys, which are being prepared."""
    fleet = fleet_json(1, 2)
    fleet["workers"] += [worker_json(f"w{rank}", f"10.0.0.2:{7600 + rank}", state="ASSIGNED",
                                     replica=0, rank=rank, epoch=4) for rank in (2, 3)]
    replica = fleet["replicas"][0]
    replica["next"] = topology_json(4, 1, 4)
    progress = [("warmup/self-test", 1, 2, "groups"), ("warmup/self-test", 2, 2, "groups"),
                ("load", 71 << 20, 144 << 20, "bytes"), ("load", 0, 0, "")]
    fleet["operations"] = [operation_json("RUNNING", "PREPARING")]
    fleet["operations"][0]["replicas"][0]["ranks"] = [
        {"rank": rank, "worker_id": f"w{rank}",
         "progress": {"phase": phase, "done": done, "total": total, "unit": unit}}
        for rank, (phase, done, total, unit) in enumerate(progress)]
    return fleet


def operation_json(state: str, stage: str, identity: str = "op1") -> Json:
    operation = {
        "id": identity, "kind": "SCALE_CONTEXT_PARALLEL", "state": state, "summary": "cp 2 to 4",
        "no_change": False, "started": "2026-03-01T11:59:58Z", "replicas": [{
            "replica": 0, "stage": stage, "from_epoch": 3, "to_epoch": 4,
            "from": {"tp": 1, "cp": 2, "pp": 1, "replicas": 1},
            "to": {"tp": 1, "cp": 4, "pp": 1, "replicas": 1}, "note": "", "ranks": [],
            "prepare_ms": 1104.0, "pause_ms": 4.2, "kv_blocks_moved": 21, "kv_blocks_kept": 20,
            "kv_bytes_moved": 3355443, "kv_bytes_in_pause": 1000, "copy_ms": 1.2,
            "copy_bytes_per_second": 1e9, "sequences": 2, "tokens_rebuilt": 0,
            "sequences_dropped": 0}]}
    if state != "RUNNING":
        operation |= {"ended": "2026-03-01T11:59:59Z", "took_ms": 1000.0}
    return operation


def failed_json() -> Json:
    """Rank 1 of 2 was lost, and nobody is there to take its place."""
    fleet = fleet_json(1, 2)
    message = "rank 1 (worker w1) was lost in serving: its connection broke"
    fleet["workers"].pop(1)
    fleet["workers"][0] = worker_json("w0")
    replica = fleet["replicas"][0]
    replica |= {"state": "FAILED", "ledgers": []}
    del replica["serving_since"]
    replica["failure"] = {"code": 14, "message": message, "detail": {
        "reason": "RANK_LOST", "epoch": 3, "ranks": [1], "workers": ["w1"], "culprit_count": 1,
        "phase": "serving", "retriable": True}}
    fleet["events"].insert(0, event_json(
        3, "EPOCH_FAILED", message, replica=0, epoch=3, rank=1, worker_id="w1", phase="serving"))
    return fleet


def worker_page_json() -> Json:
    """Worker w1, rank 1 of 4."""
    epoch = {"replica": 0, "epoch": 3, "rank": 1, "state": "SERVING",
             "progress": {"phase": "serving", "done": 0, "total": 0, "unit": ""}, "step": 912,
             "tokens": 4000, "queued_requests": 0, "kv_blocks_used": 364, "kv_blocks_total": 1456,
             "ledger": {"rank": 1, "bytes": dict(LEDGER), "kv_blocks": 1456, "block_tokens": 16,
                        "buckets": BUCKETS}, "topology": topology_json(3, 2, 2)}
    fleet = fleet_json()
    return {"daemon": {**fleet["daemon"], "role": "worker", "name": "w1"},
            "worker": copy.deepcopy({key: fleet["workers"][1][key]
                                     for key in ("worker_id", "address", "device")}),
            "model": fleet["model"], "epochs": [epoch]}
