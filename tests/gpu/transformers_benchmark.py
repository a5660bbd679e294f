"""The same 8B Llama by transformers on one GPU, in the same terms: prints one JSON object.

    transformers_benchmark.py [--compile-seconds S] [--batches 1,8,32] [--tiny]

Decode: device time of a step at a context of 1,024 tokens with a static cache, the model compiled
by torch.compile if that comes to its end in time, and the step captured in a CUDA graph either way.
Prefill: 2,048 tokens with sdpa. Beside them the rates that the machine reached in the same run.
"""

import argparse
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers

_CONTEXT = 1024
_PROMPT = 2048
_REPETITIONS = 20
# Rounds before a capture, as CUDA graphs want them.
_WARM_UP = 3


class OutOfTime(Exception):
    """What was tried takes too long."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises OutOfTime in the main thread when the time is over."""

    def ring(*_: object) -> None:
        raise OutOfTime(f"not within {seconds} s")

    former = signal.signal(signal.SIGALRM, ring)
    signal.alarm(max(1, seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def milliseconds(run: Callable[[], object], repetitions: int = _REPETITIONS) -> float:
    """Median device time of one run."""
    times = []
    for _ in range(repetitions):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def graph_of(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Captures what runs twice alike."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def load_model(tiny: bool) -> torch.nn.Module:
    fields = json.loads(Path(__file__).with_name("eight_billion.json").read_text())
    # Names that the configuration takes or sets by itself.
    theta = fields.pop("rope_theta")
    for name in ("architectures", "torch_dtype", "rope_scaling", "model_type"):
        fields.pop(name)
    if tiny:
        fields |= {"num_hidden_layers": 2, "hidden_size": 512, "intermediate_size": 1024}
    config = transformers.LlamaConfig(
        **fields, rope_parameters={"rope_type": "default", "rope_theta": theta},
        attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


class Decoding:
    """Steps of one token for each sequence of a batch, behind _CONTEXT tokens of each."""

    def __init__(self, model: torch.nn.Module, batch: int):
        self._cache = transformers.StaticCache(
            config=model.config, max_cache_len=_CONTEXT + 64)
        self._ids = torch.full((batch, 1), 7, device="cuda")
        self._position = torch.tensor([_CONTEXT], device="cuda")
        self._fill(model, batch)

    def _fill(self, model: torch.nn.Module, batch: int) -> None:
        """In pieces, so that the logits of no more than one are held."""
        for begin in range(0, _CONTEXT, 256):
            positions = torch.arange(begin, begin + 256, device="cuda")
            model(input_ids=torch.randint(3, 1000, (batch, 256), device="cuda"),
                  past_key_values=self._cache, use_cache=True, cache_position=positions,
                  position_ids=positions.unsqueeze(0).expand(batch, -1), logits_to_keep=1)

    def run(self, forward: Callable[..., object]) -> object:
        """Always the same position, so that every run is alike."""
        return forward(
            input_ids=self._ids, past_key_values=self._cache, use_cache=True,
            cache_position=self._position,
            position_ids=self._position.unsqueeze(0).expand(self._ids.shape[0], -1))


def measure_decode(model: torch.nn.Module, batch: int, compile_seconds: float) -> dict:
    decoding = Decoding(model, batch)
    how, graph = "CUDA graph", None
    if compile_seconds >= 1:
        try:
            with time_limit(int(compile_seconds)):
                compiled = torch.compile(model.forward, dynamic=False)
                graph = graph_of(lambda: decoding.run(compiled))
            how = "torch.compile and CUDA graph"
        except Exception as error:  # Whatever it is, the step is captured as it is.
            how = f"CUDA graph; torch.compile: {str(error).splitlines()[0][:200]}"
            torch.cuda.synchronize()
    graph = graph or graph_of(lambda: decoding.run(model.forward))
    return {"batch": batch, "device_ms": milliseconds(graph.replay), "how": how}


def measure_prefill(model: torch.nn.Module) -> dict:
    ids = torch.randint(3, 1000, (1, _PROMPT), device="cuda")

    def run() -> object:
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)

    run()
    return {"tokens": _PROMPT, "device_ms": milliseconds(run, 7)}


def machine_limits() -> dict:
    """Per second, bytes that a large copy reads and writes, and operations of a large product."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").view(torch.float32)
    target = torch.empty_like(source)
    copy_ms = milliseconds(lambda: target.copy_(source))
    matrix = torch.randn(8192, 8192, device="cuda").bfloat16()
    matrix @ matrix
    product_ms = milliseconds(lambda: matrix @ matrix)
    return {"copy_bytes_per_second": 2 * (1 << 31) / copy_ms * 1e3,
            "matrix_flops_per_second": 2 * 8192 ** 3 / product_ms * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile-seconds", type=int, default=150, help="of all batches")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the program")
    options = parser.parse_args()
    with torch.no_grad():
        report = {
            "program": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "device": torch.cuda.get_device_name(), "limits": machine_limits(),
            "context_tokens": _CONTEXT}
        model = load_model(options.tiny)
        report["prefill"] = [measure_prefill(model)]
        end = time.monotonic() + options.compile_seconds
        report["decode"] = [measure_decode(model, int(batch), end - time.monotonic())
                            for batch in options.batches.split(",")]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
