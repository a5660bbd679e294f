#!/usr/bin/env python3
"""Runs the objects of deploy/kubernetes/cpu-demo here, without a cluster, and tries them.

    run_pods.py [--overlay cpu-demo] [--pods N] [--model DIR] [--env NAME=VALUE]... [--json]

Builds the image of out/bin with buildah, renders the overlay, and starts its pods: each with network,
PID and IPC namespaces and a /dev/shm of its own, each container in the image's root file system,
with command, environment, user, mounts and probes as the YAML has them. Certificates come from
openssl instead of cert-manager, names from a small DNS server. Then: a Forward through mTLS per pod,
a probe by HTTP, two calls that are refused, the Job scale-cp, another Forward, SIGTERM. Of a cluster
are missing: limits of memory and processors, seccomp, network policies.

Needs root, for namespaces of its own: nothing of this machine is changed, and nothing outlives the
script. The exit status is 0 when all went well.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from cluster import LocalCluster
from image import build_image, missing_tools
from rendered import KUBERNETES, REPOSITORY, Object, kubectl

_MODEL = REPOSITORY / "tests" / "testdata" / "goldens" / "llama-mha12"
_PATIENCE = 60.0


class Report:
    """What happened, told as it happens and kept for --json."""

    def __init__(self, for_people: bool):
        self.facts: dict[str, object] = {}
        self._for_people = for_people

    def add(self, name: str, fact: object) -> None:
        self.facts[name] = fact
        if self._for_people:
            for number, line in enumerate(_lines_of(fact)):
                print(f"  {'' if number else name:<14} {line}", flush=True)


def _lines_of(fact: object) -> list[str]:
    if isinstance(fact, dict):
        return [f"{key}: {value}" for key, value in fact.items()]
    if isinstance(fact, list) and all(isinstance(it, str) for it in fact):
        return fact
    return [str(fact)]


def missing() -> str:
    """Why this cannot run here; empty when it can."""
    absent = missing_tools()
    if kubectl() is None:
        absent.append("kubectl")
    if absent:
        return f"these commands are missing: {' '.join(absent)}"
    if os.geteuid() != 0:
        return "pods need namespaces, and those need root"
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link", "add",
                            "pods", "type", "bridge"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "this machine gives root no namespaces with a bridge"


def _get(url: str) -> list[str]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return [line.decode().strip() for line in answer]


def _forward(cluster: LocalCluster, name: str, golden: Object, replica: int = 0) -> list[int]:
    prompt = ",".join(map(str, golden["prompt"]))
    words = ["forward", "--json", "--prompt-tokens", prompt, "--max-tokens",
             str(len(golden["tokens"])), "--replica", str(replica)]
    text = cluster.run_job("scale-cp", name, _PATIENCE, words, "muster-scheduler-tls")
    return json.loads(text)["tokens"]


def _refusal(cluster: LocalCluster, name: str, secret: str | None = None,
             environment: dict[str, str] | None = None) -> str:
    """What a Job that must not succeed was told."""
    try:
        output = cluster.run_job("scale-cp", name, _PATIENCE, secret=secret,
                                 environment=environment)
    except RuntimeError as error:
        return str(error).splitlines()[-1]
    raise RuntimeError(f"{name} was let in: {output}")


def _try_out(cluster: LocalCluster, golden: Object, pods: int, report: Report) -> None:
    started = time.monotonic()
    cluster.start(pods, _PATIENCE)
    report.add("serving", f"{time.monotonic() - started:.1f} s")
    report.add("forward", [_forward(cluster, f"client-{it}", golden, it) for it in range(pods)])
    pod = cluster.workers[0]
    report.add("confinement",
               {it.name: it.confinement() for it in [*pod, *cluster.coordinators[0]]})
    report.add("probe", _get(f"{cluster.serving(pod)[0]}/readyz?verbose"))
    report.add("refused", [
        _refusal(cluster, "scheduler", secret="muster-scheduler-tls"),
        _refusal(cluster, "stranger", environment={"MUSTER_TLS": ""})])
    report.add("scale-cp", cluster.run_job("scale-cp", "scale-cp-4", _PATIENCE).splitlines())
    report.add("forward again", _forward(cluster, "client-again", golden))
    ending = time.monotonic()
    report.add("SIGTERM", cluster.stop())
    report.add("ended", f"{time.monotonic() - ending:.1f} s")


def _run_inside(options: argparse.Namespace) -> int:
    report = Report(for_people=not options.json)
    golden = json.loads((options.model / "golden.json").read_text())
    report.add("expected", golden["tokens"])
    cluster = LocalCluster.prepare(options.overlay, options.inside, options.image, options.model,
                                   dict(options.env))
    try:
        _try_out(cluster, golden, options.pods, report)
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
        print(f"{cluster.logs()}run_pods.py: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report.facts))
    return 0


def _enter_namespaces(root: Path) -> int:
    """Runs this script again where it cannot touch anything of the machine."""
    work = root.parent
    for left in work.glob("pods-*"):  # by a run that was killed
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="pods-", dir=work) as directory:
        return subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork",
             "--kill-child", "--mount-proc", sys.executable, __file__, *sys.argv[1:], "--image",
             str(root.resolve()), "--inside", str(Path(directory).resolve())],
            check=False).returncode


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def _model(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "golden.json").is_file():
        raise argparse.ArgumentTypeError(f"'{text}' has no golden.json, which says what it answers")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--overlay", default="cpu-demo", choices=sorted(os.listdir(KUBERNETES)),
                        help="folder of deploy/kubernetes (default: cpu-demo)")
    parser.add_argument("--pods", type=int, default=1, choices=range(1, 9), metavar="N",
                        help="replicas of the StatefulSet, 1 to 8 (default: 1)")
    parser.add_argument("--model", type=_model, default=_MODEL, help="a model with its golden.json")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", type=_variable,
                        help="a variable for every container")
    parser.add_argument("--image", type=Path, help="root file system of an image that is built")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        return _run_inside(options)
    if reason := missing():
        print(f"run_pods.py: {reason}", file=sys.stderr)
        return 1
    return _enter_namespaces(options.image or build_image().root)


if __name__ == "__main__":
    sys.exit(main())
