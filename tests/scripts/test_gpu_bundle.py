"""What goes into the bundle for machines with GPUs."""

import hashlib

from gpu_bundle import Program, programs_of, write_parts

RULES = """<?xml version="1.1" encoding="UTF-8" standalone="no"?>
<query version="2">
  <rule class="cc_binary" name="//kernels:norm_cuda_test">
    <list name="tags"><string value="gpu"/></list>
    <list name="deps"><label value="//kernels:norm"/></list>
  </rule>
  <rule class="cc_binary" name="//worker/collective/ipc:fused_cuda_benchmark">
    <list name="tags"><string value="gpu"/><string value="mps"/></list>
  </rule>
  <rule class="cc_test" name="//tests/conformance:cuda_processes_test">
    <list name="deps"><label value="//tests/support:run_ranks"/></list>
  </rule>
  <rule class="cc_binary" name="//worker/engine:swap_cuda_test">
    <list name="tags"><string value="topic=faults"/></list>
  </rule>
  <rule class="cc_binary" name="//tests/support:rank"/>
  <rule class="cc_library" name="//kernels:norm"/>
</query>"""


def test_programs_get_their_kind_topic_and_ranks_from_their_rules():
    assert programs_of(RULES) == [
        Program("norm_cuda_test", "kernels", "test", "programs/kernels/norm_cuda_test", False),
        Program("cuda_processes_test", "conformance", "test",
                "programs/tests/conformance/cuda_processes_test", True),
        Program("rank", "conformance", "helper", "programs/tests/support/rank", True),
        Program("fused_cuda_benchmark", "benchmarks", "benchmark",
                "programs/worker/collective/ipc/fused_cuda_benchmark", True),
        Program("swap_cuda_test", "faults", "test", "programs/worker/engine/swap_cuda_test", False)]


def test_the_model_is_cut_into_parts_with_checksums(tmp_path):
    (tmp_path / "model-part-9").write_bytes(b"stale")
    parts = write_parts(b"abcdefg", tmp_path, 3)
    assert [part["name"] for part in parts] == ["model-part-1", "model-part-2", "model-part-3"]
    assert b"".join((tmp_path / part["name"]).read_bytes() for part in parts) == b"abcdefg"
    assert parts[2]["sha256"] == hashlib.sha256(b"g").hexdigest()
    assert not (tmp_path / "model-part-9").exists()
