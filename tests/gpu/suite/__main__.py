"""The command line of the suite."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from suite import results
from suite.bundle import Bundle, vendor_libraries
from suite.mps import control_program
from suite.results import Record
from suite.topics import TOPICS, Run

_DESCRIPTION = """\
Tests and measures what needs a GPU. Each topic takes at most --limit seconds. The last line is
'N passed, N failed, N skipped'; the exit status is 0 if nothing failed."""


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("run_gpu_suite.sh", description=_DESCRIPTION)
    add = parser.add_argument
    add("--bundle", type=Path, help=argparse.SUPPRESS, required=True)
    add("--gpus", metavar="N", type=int, default=1,
        help="use so many GPUs, one rank each; with 1, ranks share it under MPS (default: 1)")
    add("--topics", metavar="LIST", type=_topics, default=list(TOPICS),
        help=f"some of {','.join(TOPICS)} (default: all)")
    add("--limit", metavar="S", type=float, default=480.0,
        help="seconds of a topic (default: 480)")
    add("--model-parts", metavar="DIR", type=Path, action="append", default=[],
        help="where else model-part-1, .. lie (default: here, in out/gpu, beside the bundle)")
    add("--collect", action="store_true",
        help="run nothing: add up what earlier calls left, one topic after the other")
    return parser.parse_args(words)


def _topics(text: str) -> list[str]:
    topics = text.split(",")
    if wrong := [topic for topic in topics if topic not in TOPICS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(TOPICS)}")
    return topics


def _run_topic(topic: str, bundle: Bundle, folder: Path, environment: dict[str, str],
               options: argparse.Namespace) -> list[Record]:
    """Runs a topic, telling each program as it ends, and leaves its records for --collect."""
    print(f"\n== {topic} ==", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    end = time.monotonic() + options.limit
    run = Run(bundle, topic, options.gpus, folder, environment, lambda: end - time.monotonic())
    records = []
    for record in TOPICS[topic](run):
        records.append(record)
        print(f"  {record.name}: {results.total([record])}, {record.seconds:.1f} s", flush=True)
    results.save(folder / "records.json", records)
    return records


def _describe(bundle: Bundle) -> str:
    """The machine, and where it keeps the vendor's libraries."""
    query = "--query-gpu=index,name,driver_version,memory.total,compute_mode"
    try:
        gpus = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True,
                              text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        gpus = ""
    lines = [f"bundle of {bundle.revision}", *(gpus or "nvidia-smi names no GPU").splitlines(),
             *(f"found {path}" for path in vendor_libraries()),
             f"MPS by {control_program() or 'nothing: there is no nvidia-cuda-mps-control'}",
             f"{os.cpu_count()} processors, Python {sys.version.split()[0]}"]
    return "\n".join(lines)


def _deliver(folder: Path, records: list[Record], description: str) -> None:
    """The tables and the archive, in $OUT or where the suite was called."""
    text = "\n".join(["# GPU suite", "", "```", description, "```", "", results.table(records), "",
                      *results.explanations(records), "", results.total(records), ""])
    (folder / "results.md").write_text(text)
    target = Path(os.environ.get("OUT") or Path.cwd() / "results")
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() != folder.resolve():
        shutil.copy(folder / "results.md", target / "results.md")
    results.archive(folder, target / "gpu-suite.tar.gz")


def main(words: list[str]) -> int:
    options = _parse(words)
    bundle = Bundle(options.bundle)
    folder = bundle.root / "results"
    description = _describe(bundle)
    print(description)
    records: list[Record] = []
    if options.collect:
        for topic in TOPICS:
            path = folder / topic / "records.json"
            records += results.load(path) if path.is_file() else []
    else:
        parts = [*options.model_parts, Path.cwd(), Path.cwd() / "out" / "gpu", bundle.root.parent]
        print(bundle.join_model(parts))
        environment = bundle.environment(options.gpus)
        for topic in options.topics:
            records += _run_topic(topic, bundle, folder / topic, environment, options)
    folder.mkdir(exist_ok=True)
    _deliver(folder, records, description)
    print("", results.table(records), *results.explanations(records), sep="\n")
    print(results.total(records))
    return 1 if not records or any(record.failed for record in records) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
