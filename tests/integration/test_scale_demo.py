"""`./muster demo --scale`: the text of a fleet that changes its shape, and what is told of it."""

import pytest
from fleets import MODELS, golden, written

MODEL = "llama-gqa6"
PROMPT = golden(MODEL)["prompt"]
TOKENS = 70
FIELDS = ["at_token", "from_cp", "to_cp", "epoch", "prepare_ms", "pause_ms", "kv_bytes_moved",
          "kv_blocks_kept", "failed_requests"]
# 2 layers of 3 keys and 3 values of 16 float32, for 16 tokens.
BLOCK_BYTES = 16 * 2 * 2 * 3 * 16 * 4


@pytest.fixture(autouse=True)
def small_cache(monkeypatch):
    """Workers of the demo take as much as they get, which takes them seconds to prepare."""
    monkeypatch.setenv("MUSTER_KV_MEMORY", "4MiB")


def words(*more: str) -> list[str]:
    return ["--model", str(MODELS / MODEL), "--prompt-tokens", written(PROMPT), "--dtype",
            "float32", "--max-tokens", str(TOKENS), "--threads", "1", *more]


@pytest.mark.parametrize("scale, steps", [
    ("12:4,40:1", [(12, 2, 4), (40, 4, 1)]),
    ("5:3,20:4,35:2,50:1", [(5, 2, 3), (20, 3, 4), (35, 4, 2), (50, 2, 1)])])
def test_the_json_has_every_change_and_the_tokens_of_a_run_without(programs, scale, steps):
    unresized = programs.demo_json(*words())
    report = programs.demo_json(*words("--scale", scale))
    assert unresized["resizes"] == []
    assert report["tokens"] == unresized["tokens"] and len(report["tokens"]) == TOKENS
    resizes = report["resizes"]
    assert [(it["at_token"], it["from_cp"], it["to_cp"]) for it in resizes] == steps
    assert [it["epoch"] for it in resizes] == list(range(2, 2 + len(steps)))
    for resize in resizes:
        assert list(resize) == FIELDS
        assert resize["failed_requests"] == 0
        assert resize["prepare_ms"] > 0 and resize["pause_ms"] > 0
        least = -(-(len(PROMPT) + resize["at_token"] - 1) // 16)
        moved, rest = divmod(resize["kv_bytes_moved"], BLOCK_BYTES)
        assert rest == 0 and moved > 0 and resize["kv_blocks_kept"] > 0
        assert least <= moved + resize["kv_blocks_kept"] <= -(-(len(PROMPT) + TOKENS) // 16)


def test_people_read_a_line_of_each_change_where_it_happened(programs):
    result = programs.demo(*words("--scale", "12:4,40:1"))
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "standbys w2 w3" in text
    for change in ("cp 2 → 4 at token 12: prepare", "cp 4 → 1 at token 40: prepare"):
        line = text[text.index(change):].split("failed")[0]
        assert "pause" in line and "moved" in line and "kept" in line and line.endswith(", 0 ")
    assert text.index("cp 2 → 4") < text.index("cp 4 → 1") < text.index("speed")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_tp_and_cp_at_once_change_as_well(programs):
    report = programs.demo_json(*words("--tp", "3", "--cp", "1", "--scale", "8:2"))
    assert report["tokens"] == programs.demo_json(*words("--tp", "3", "--cp", "1"))["tokens"]
    (resize,) = report["resizes"]
    assert (resize["from_cp"], resize["to_cp"], resize["failed_requests"]) == (1, 2, 0)
    assert resize["kv_bytes_moved"] % BLOCK_BYTES == 0 and resize["kv_bytes_moved"] > 0


def test_an_answer_too_short_for_a_change_says_so(programs):
    result = programs.demo(*words("--scale", "200:4"))
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert f"to cp=4 at token 200: not done, the answer has {TOKENS} tokens" in text


@pytest.mark.parametrize("scale, complaint", [
    ("12", "TOKEN:CP pairs like 12:4,40:1"), ("12:4,12:1", "tokens must ascend"),
    ("12:2", "cp is 2 already"), ("12:2000", "cp can be 1 to 1,024"),
    ("12:64", "64 workers with --tp 1; a replica can have 16")])
def test_a_wrong_scale_is_one_line_and_status_2(programs, scale, complaint):
    result = programs.demo(*words("--scale", scale))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and complaint in result.stderr


def test_a_size_that_the_model_cannot_have_ends_the_demo_with_its_reason(programs):
    result = programs.demo("--json", *words("--scale", "12:5"))
    assert (result.returncode, result.stdout) == (1, "")
    complaint = result.stderr.splitlines()[-1]
    assert complaint.startswith("muster: cannot plan cp=5")
    assert "which 5 does not divide" in complaint
    assert "Traceback" not in result.stderr
