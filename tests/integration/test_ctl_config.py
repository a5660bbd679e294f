"""Flags of the daemons from all four places, `--print-config`, and the document that lists them."""

import json
import os
import re
import subprocess

import pytest
import yaml
from fleets import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "configuration.md"
DAEMONS = ["muster-coordinator", "muster-worker"]
REQUIRED = {"muster-coordinator": [], "muster-worker": ["--coordinator=[::1]:7600", "--model=m"]}
# Whose default is another on every machine.
VARYING = {"threads": "all processors"}
# How --help begins a flag: its name, what it takes, its default.
HEAD = re.compile(
    r"  --(?P<name>\S+)(?: (?P<value>[^=\s(]+))?(?:=(?P<default>\S+))?(?P<required> REQUIRED)?"
    r" \(Env:(?P<variable>\w+)\)\s*(?P<text>.*)")


def run(programs, daemon: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return subprocess.run(
        [str(programs.bin / daemon), *words], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=10, check=False, env=clean | variables)


def flags(programs, daemon: str) -> list[dict]:
    """Of --help, --config not among them."""
    lines = run(programs, daemon, "--help").stdout.splitlines()
    found = []
    for line, after in zip(lines, lines[1:] + [""]):
        if (head := HEAD.match(line)) and head["name"] != "config":
            found.append(head.groupdict() | {"text": head["text"] or after.strip()})
    return found


def row(flag: dict) -> str:
    """Of the document's table."""
    value = f" {flag['value']}" if flag["value"] else ""
    default = f"`{flag['default']}`" if flag["default"] else ""
    default = VARYING.get(flag["name"], "required" if flag["required"] else default)
    default = default or ("not set" if flag["value"] else "`false`")
    return f"| `--{flag['name']}{value}` | `{flag['variable']}` | {default} | {flag['text']} |"


def printed(programs, daemon: str, *words: str, **variables: str) -> str:
    result = run(programs, daemon, *REQUIRED[daemon], *words, "--print-config", **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_document_lists_every_flag_as_help_has_it(programs, daemon):
    text = DOCUMENT.read_text()
    section = text[text.index(f"## {daemon}\n"):].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `--")]
    wanted = [row(flag) for flag in flags(programs, daemon)]
    assert len(wanted) > 8
    assert rows == wanted, "docs/configuration.md wants:\n" + "\n".join(wanted)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_flag_is_printed_and_what_is_printed_says_the_same(programs, daemon, tmp_path):
    text = printed(programs, daemon)
    names = [re.sub(r"^(# )?([a-z-]+):.*", r"\2", line) for line in text.splitlines()[1:]]
    assert names == [flag["name"] for flag in flags(programs, daemon)]
    for flag in flags(programs, daemon):
        assert flag["variable"] == "MUSTER_" + flag["name"].upper().replace("-", "_")
    values = yaml.safe_load(text)
    for name, content in (("a.yaml", text), ("a.json", json.dumps(values))):
        (tmp_path / name).write_text(content)
        again = run(programs, daemon, "--config", str(tmp_path / name), "--print-config")
        assert again.returncode == 0, again.stderr
        assert yaml.safe_load(again.stdout) == values


def test_the_first_of_command_line_environment_and_file_decides(programs, tmp_path):
    file = tmp_path / "worker.yaml"
    file.write_text("threads: 3\ndtype: float32\nkv-memory: 3MiB\n# a comment\ninsecure: true\n")
    text = printed(programs, "muster-worker", "--threads", "1", MUSTER_CONFIG=str(file),
                   MUSTER_THREADS="2", MUSTER_DTYPE="bfloat16")
    lines = {line.split(":")[0]: line.split() for line in text.splitlines()}
    assert lines["threads"] == ["threads:", "1", "#", "command", "line"]
    assert lines["dtype"] == ["dtype:", "bfloat16", "#", "MUSTER_DTYPE"]
    assert lines["kv-memory"] == ["kv-memory:", '"3MiB"', "#", "file,", "line", "3"]
    assert lines["insecure"] == ["insecure:", "true", "#", "file,", "line", "5"]
    assert lines["log-level"] == ["log-level:", "info", "#", "default"]


@pytest.mark.parametrize("content, part", [
    ("threads: 0\n", "--threads: '0' is not a whole number"),
    ("trheads: 1\n", "line 1: 'trheads' is no flag"),
    ("threads = 1\n", "line 1: wants flags as `name: value`"),
    ('{"threads": 1,\n "dtype": [}\n', "line 2: "),
])
def test_a_file_that_is_wrong_is_refused_with_its_line(programs, tmp_path, content, part):
    file = tmp_path / "worker.yaml"
    file.write_text(content)
    result = run(programs, "muster-worker", *REQUIRED["muster-worker"], "--config", str(file))
    assert result.returncode == 2 and part in result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("muster-worker: ")


def test_print_config_refuses_what_a_start_would(programs):
    result = run(programs, "muster-coordinator", "--listen", "0.0.0.0:0", "--print-config")
    assert result.returncode == 2 and "--insecure" in result.stderr and result.stdout == ""
