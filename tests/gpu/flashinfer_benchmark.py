"""FlashInfer's fused all-reduce + residual + RMSNorm (one shot), timed as ours: prints a table.

    flashinfer_benchmark.py --flashinfer FOLDER [--ranks 2,4] [--beside PROGRAM]

FOLDER is prepared by hand: the wheel of apache-tvm-ffi (or tvm_ffi, unpacked), and
so/trtllm_comm/trtllm_comm.so, FlashInfer's module compiled ahead of time for this GPU. Ranks are
processes, one to a GPU where there are enough, else all under an MPS of their own. PROGRAM is
collectives_cuda_benchmark, to run in the same call. bfloat16, graphs of 20 operations, median of 61
replays, slowest rank; every size is compared with a sum in double precision before it is timed.
"""

import argparse
import ctypes
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from suite.mps import multi_process_service

_HIDDEN = (4096, 7168)
_TOKENS = (1, 8, 32, 128, 512, 2048)
_OPS = 20
_REPLAYS = 61
_WARM_UP = 3
_EPS = 1e-5
# Its blocks wait for those of the peers: elements of all ranks on a GPU whose blocks fit there.
_MOST_RESIDENT = 2 * 128 * 4096
_WORLD_SECONDS = 120
_ROUNDING = 2.0**-8
_MODULE = "so/trtllm_comm/trtllm_comm.so"
# Of FlashInfer's interface.
_ALL_REDUCE_RESIDUAL_NORM = 1
_FLAG_BYTES = 256 * 4
_ALIGNMENT = 2 << 20
_LAMPORT_BOXES = 3


class _IpcHandle(ctypes.Structure):
    _fields_ = [("data", ctypes.c_byte * 64)]


class _Runtime:
    """What of CUDA's runtime PyTorch does not offer. All calls raise RuntimeError."""

    _LAZY_PEER_ACCESS = 1
    _DEFAULT_COPY = 4

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcudart.so.13")

    def allocate(self, size: int) -> int:
        """Memory in an allocation of its own, all zeros."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        self._call("cudaMemset", address, 0, ctypes.c_size_t(size))
        return address.value or 0

    def export(self, address: int) -> bytes:
        handle = _IpcHandle()
        self._call("cudaIpcGetMemHandle", ctypes.byref(handle), ctypes.c_void_p(address))
        return bytes(handle)

    def open(self, handle: bytes) -> int:
        address = ctypes.c_void_p()
        self._call("cudaIpcOpenMemHandle", ctypes.byref(address),
                   _IpcHandle.from_buffer_copy(handle), ctypes.c_uint(self._LAZY_PEER_ACCESS))
        return address.value or 0

    def write(self, address: int, data: bytes) -> None:
        self._call("cudaMemcpy", ctypes.c_void_p(address), ctypes.c_char_p(data),
                   ctypes.c_size_t(len(data)), self._DEFAULT_COPY)

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name}: CUDA error {code}")


class _Rank:
    """One rank's process."""

    def __init__(self, rank: int, world: int, module: Path):
        import tvm_ffi
        self.rank = rank
        self.world = world
        self._gpus = torch.cuda.device_count()
        torch.cuda.set_device(rank % self._gpus)
        dist.init_process_group("gloo", rank=rank, world_size=world,
                                timeout=timedelta(seconds=_WORLD_SECONDS))
        self._library = tvm_ffi.load_module(str(module))
        self._stream = torch.cuda.Stream()
        self._workspace = self._exchange()

    def _exchange(self) -> torch.Tensor:
        """Addresses of three buffers of every rank, then of this rank's counters."""
        runtime = _Runtime()
        message = self.world * max(_TOKENS) * max(_HIDDEN) * 2
        addresses = []
        for size in (message, self.world * _FLAG_BYTES, _LAMPORT_BOXES * message):
            own = runtime.allocate(-(-size // _ALIGNMENT) * _ALIGNMENT)
            handles: list[Any] = [None] * self.world
            dist.all_gather_object(handles, runtime.export(own))
            addresses += [own if peer == self.rank else runtime.open(handle)
                          for peer, handle in enumerate(handles)]
        lamport = addresses[2 * self.world + self.rank]
        self._library.trtllm_lamport_initialize(
            lamport, _LAMPORT_BOXES * message // 2, torch.float16)
        counters = runtime.allocate(32)
        runtime.write(counters + 12, message.to_bytes(4, "little"))
        self.meet()
        return torch.tensor([*addresses, counters], dtype=torch.int64, device="cuda")

    def meet(self) -> None:
        torch.cuda.synchronize()
        dist.barrier()

    def fits(self, tokens: int, hidden: int) -> bool:
        ranks = -(-self.world // self._gpus)
        return ranks == 1 or ranks * tokens * hidden <= _MOST_RESIDENT

    def measure(self, tokens: int, hidden: int) -> float:
        """Microseconds of one operation, by the slowest rank."""
        partials = [_random(tokens, hidden, seed) for seed in range(self.world)]
        residual = _random(tokens, hidden, 99)
        weight = (_random(1, hidden, 7)[0].float() / 4 + 1).bfloat16()
        residual_out, norm_out = (torch.full_like(residual, float("nan")) for _ in range(2))

        def op() -> None:
            self._library.trtllm_allreduce_fusion(
                partials[self.rank], self.world, self.rank, tokens, hidden, self._workspace,
                True,  # dependent launch
                True,  # one shot
                True,  # completion is told at the end
                False,  # float32 sums
                _ALL_REDUCE_RESIDUAL_NORM, None, residual, residual_out, norm_out, None, None,
                weight, _EPS, None, None, None, None)

        self.meet()
        with torch.cuda.stream(self._stream):
            op()
        self.meet()
        _compare(partials, residual, weight, residual_out, norm_out)
        return self._slowest(self._time(op))

    def _time(self, op: Callable[[], None]) -> float:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            for _ in range(_OPS):
                op()
        self.meet()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(_REPLAYS + 1)]
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                graph.replay()
            events[0].record()
            for event in events[1:]:
                graph.replay()
                event.record()
        self.meet()
        return statistics.median(
            1e3 * begin.elapsed_time(end) / _OPS for begin, end in zip(events, events[1:]))

    @staticmethod
    def _slowest(micros: float) -> float:
        value = torch.tensor([micros], dtype=torch.float64)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return value.item()

    def describe(self) -> str:
        where = ("one GPU each" if self.world <= self._gpus
                 else f"{-(-self.world // self._gpus)} on a GPU")
        driver = Path("/sys/module/nvidia/version")
        version = driver.read_text().strip() if driver.is_file() else "of unknown version"
        return f"{self.world} ranks on {torch.cuda.get_device_name()}, {where}; driver {version}"


def _random(tokens: int, hidden: int, seed: int) -> torch.Tensor:
    """The same in every process."""
    generator = torch.Generator(device="cuda").manual_seed(seed + 1)
    values = torch.rand(tokens, hidden, generator=generator, device="cuda")
    return (4 * values - 2).bfloat16()


def _compare(partials: list[torch.Tensor], residual: torch.Tensor, weight: torch.Tensor,
             residual_out: torch.Tensor, norm_out: torch.Tensor) -> None:
    """Every element: each sum may have been rounded to bfloat16, the norm taken before the last."""
    terms = [*partials, residual]
    wanted, magnitude = (torch.zeros_like(residual, dtype=torch.float64) for _ in range(2))
    for term in terms:
        wanted += term.double()
        magnitude += term.double().abs()
    _expect("residual", residual_out, wanted, len(terms) * _ROUNDING * magnitude)
    row = residual_out.double()
    norm = row * torch.rsqrt(row.pow(2).mean(-1, keepdim=True) + _EPS) * weight.double()
    _expect("norm", norm_out, norm, 4 * _ROUNDING * norm.abs())


def _expect(what: str, got: torch.Tensor, wanted: torch.Tensor, tolerance: torch.Tensor) -> None:
    close = (got.double() - wanted).abs() <= 1.01 * tolerance
    if bool(close.all()):
        return
    index = tuple((~close).nonzero()[0].tolist())
    raise ValueError(f"{what} at {index}: {got[index].item()} for {wanted[index].item()}")


def _run_rank(rank: int, world: int, folder: Path) -> None:
    process = _Rank(rank, world, folder / _MODULE)

    def say(text: str) -> None:
        if rank == 0:
            print(text, flush=True)

    say(f"\n{process.describe()}\nFlashInfer, one shot, bfloat16, graphs of {_OPS}, median of "
        f"{_REPLAYS} replays, slowest rank, microseconds\n\n"
        "| hidden | tokens | FlashInfer |\n|---|---|---|")
    for hidden in _HIDDEN:
        for tokens in _TOKENS:
            fits = process.fits(tokens, hidden)
            say(f"| {hidden} | {tokens} | "
                + (f"{process.measure(tokens, hidden):.2f} |" if fits else "- |"))
    process.meet()
    sys.stdout.flush()
    os._exit(0)  # peers have this memory open: nobody gives it back before the other


def _run_world(world: int, folder: Path, environment: Mapping[str, str]) -> bool:
    """Whether all ranks came to their end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = dict(environment) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [subprocess.Popen(
        [sys.executable, __file__, "--flashinfer", folder, "--rank", str(rank), "--ranks",
         str(world)], env=served) for rank in range(world)]
    deadline = time.monotonic() + _WORLD_SECONDS
    try:
        while time.monotonic() < deadline:
            states = [process.poll() for process in ranks]
            if any(states):
                return False
            if None not in states:
                return True
            time.sleep(0.1)
        print(f"{world} ranks: not within {_WORLD_SECONDS} s", file=sys.stderr)
        return False
    finally:
        for process in ranks:
            process.kill()
            process.wait()


def _run_all(worlds: list[int], folder: Path, beside: Path | None,
             environment: dict[str, str]) -> bool:
    ok = True
    for world in worlds:
        if beside is not None:
            print(flush=True)
            ok = subprocess.run([beside, str(world)], env=environment).returncode == 0 and ok
        ok = _run_world(world, folder, environment) and ok
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flashinfer", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--ranks", default="2,4", help="numbers of ranks, apart by commas")
    parser.add_argument("--beside", type=Path, metavar="PROGRAM",
                        help="collectives_cuda_benchmark, to run before it")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    worlds = [int(world) for world in options.ranks.split(",")]
    folder = options.flashinfer.resolve()
    if options.rank is not None:
        _run_rank(options.rank, worlds[0], folder)
    if not (folder / _MODULE).is_file():
        parser.error(f"there is no {folder / _MODULE}")
    if not torch.cuda.device_count():
        parser.error("there is no GPU")
    with tempfile.TemporaryDirectory(prefix="muster-flashinfer-") as packages:
        for wheel in folder.glob("apache_tvm_ffi-*.whl"):
            zipfile.ZipFile(wheel).extractall(packages)
        paths = [packages, str(folder), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        beside = options.beside.resolve() if options.beside else None
        if max(worlds) <= torch.cuda.device_count():
            return 0 if _run_all(worlds, folder, beside, environment) else 1
        with multi_process_service(environment) as served:
            return 0 if _run_all(worlds, folder, beside, served) else 1


if __name__ == "__main__":
    sys.exit(main())
