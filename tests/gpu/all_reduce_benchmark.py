"""All-reduce + residual + RMSNorm of others, timed as ours: prints tables.

    all_reduce_benchmark.py [--flashinfer FOLDER] [--ranks 2,4] [--beside PROGRAM]

Ranks are processes, one to a GPU where there are enough, else all under an MPS of their own. With
a GPU each, PyTorch's symmetric memory is measured; with FOLDER, FlashInfer. That is prepared by
hand: the wheel of apache-tvm-ffi (or tvm_ffi, unpacked), and so/trtllm_comm/trtllm_comm.so,
FlashInfer's module compiled ahead of time for this GPU. PROGRAM is collectives_cuda_benchmark, ours
and NCCL's, run in the same call. bfloat16, graphs of 20 operations, median of 61 replays, slowest
rank; every size is compared with a sum in double precision before it is timed.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from all_reduce_peers import EPS, FlashInfer, Inputs, Operation, Peer, SymmetricMemory
from suite.mps import multi_process_service

_HIDDEN = (4096, 7168)
_TOKENS = (1, 8, 32, 128, 512, 2048)
_MOST = max(_HIDDEN) * max(_TOKENS)
_OPS = 20
_REPLAYS = 61
_WARM_UP = 3
# Blocks that wait for those of the peers: elements of all ranks on a GPU whose blocks fit there.
_MOST_RESIDENT = 2 * 128 * 4096
_WORLD_SECONDS = 120
_ROUNDING = 2.0**-8
_OURS = Path(__file__).parents[2] / "programs/worker/collective/nccl/collectives_cuda_benchmark"


class _Rank:
    """One rank's process."""

    def __init__(self, rank: int, world: int, flashinfer: Path | None):
        self.rank = rank
        self.world = world
        self._gpus = torch.cuda.device_count()
        torch.cuda.set_device(rank % self._gpus)
        dist.init_process_group("gloo", rank=rank, world_size=world,
                                timeout=timedelta(seconds=_WORLD_SECONDS))
        self._stream = torch.cuda.Stream()
        shared_by = -(-world // self._gpus)
        self.peers: list[Peer] = []
        if flashinfer is not None:
            resident = _MOST if shared_by == 1 else _MOST_RESIDENT // shared_by
            self.peers.append(FlashInfer(flashinfer, _MOST, resident))
        if shared_by == 1:  # it wants GPUs that differ
            self.peers += [SymmetricMemory(_MOST, shots) for shots in (1, 2)]

    def meet(self) -> None:
        torch.cuda.synchronize()
        dist.barrier()

    def measure(self, peer: Peer, tokens: int, hidden: int) -> float | None:
        """Microseconds of one operation, by the slowest rank; None where it does not fit."""
        partials = [_random(tokens, hidden, seed) for seed in range(self.world)]
        residual = _random(tokens, hidden, 99)
        weight = (_random(1, hidden, 7)[0].float() / 4 + 1).bfloat16()
        run = peer.operation(Inputs(partials[self.rank], residual, weight))
        if run is None:
            return None
        self.meet()
        with torch.cuda.stream(self._stream):
            found = run()
        self.meet()
        _compare(partials, residual, weight, *found)
        return self._slowest(self._time(run))

    def _time(self, run: Operation) -> float:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            for _ in range(_OPS):
                run()
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
        return (f"{self.world} ranks on {torch.cuda.get_device_name()}, {where}; driver {version}; "
                f"PyTorch {torch.__version__}")


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
    norm = row * torch.rsqrt(row.pow(2).mean(-1, keepdim=True) + EPS) * weight.double()
    _expect("norm", norm_out, norm, 4 * _ROUNDING * norm.abs())


def _expect(what: str, got: torch.Tensor, wanted: torch.Tensor, tolerance: torch.Tensor) -> None:
    close = (got.double() - wanted).abs() <= 1.01 * tolerance
    if bool(close.all()):
        return
    index = tuple((~close).nonzero()[0].tolist())
    raise ValueError(f"{what} at {index}: {got[index].item()} for {wanted[index].item()}")


def _run_rank(rank: int, world: int, flashinfer: Path | None) -> None:
    process = _Rank(rank, world, flashinfer)

    def say(text: str) -> None:
        if rank == 0:
            print(text, flush=True)

    say(f"\n{process.describe()}\nbfloat16, graphs of {_OPS}, median of {_REPLAYS} replays, slowest "
        "rank, microseconds\n\n"
        f"| hidden | tokens | {' | '.join(peer.name for peer in process.peers)} |\n"
        f"|---|---|{'---|' * len(process.peers)}")
    for hidden in _HIDDEN:
        for tokens in _TOKENS:
            micros = [process.measure(peer, tokens, hidden) for peer in process.peers]
            cells = ["-" if it is None else f"{it:.2f}" for it in micros]
            say(f"| {hidden} | {tokens} | {' | '.join(cells)} |")
    process.meet()
    sys.stdout.flush()
    os._exit(0)  # peers have this memory open: nobody gives it back before the other


def _run_world(world: int, flashinfer: Path | None, environment: Mapping[str, str]) -> bool:
    """Whether all ranks came to their end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = dict(environment) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ["--flashinfer", flashinfer] if flashinfer else []
    ranks = [subprocess.Popen(
        [sys.executable, __file__, *words, "--rank", str(rank), "--ranks", str(world)],
        env=served) for rank in range(world)]
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


def _run_all(worlds: list[int], flashinfer: Path | None, beside: Path | None,
             environment: dict[str, str]) -> bool:
    ok = True
    for world in worlds:
        if beside is not None:
            print(flush=True)
            ok = subprocess.run([beside, str(world)], env=environment).returncode == 0 and ok
        if flashinfer or world <= torch.cuda.device_count():
            ok = _run_world(world, flashinfer, environment) and ok
    return ok


def _default_worlds(gpus: int) -> list[int]:
    return [world for world in (2, 4, 8) if world <= gpus] or [2, 4]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flashinfer", type=Path, metavar="FOLDER")
    parser.add_argument("--ranks", help="numbers of ranks, apart by commas "
                        "(default: 2, 4 and 8 as far as there are GPUs; 2,4 on one)")
    parser.add_argument("--beside", type=Path, metavar="PROGRAM",
                        default=_OURS if _OURS.is_file() else None,
                        help="collectives_cuda_benchmark, to run before (default: the bundle's)")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    gpus = torch.cuda.device_count()
    worlds = ([int(world) for world in options.ranks.split(",")] if options.ranks
              else _default_worlds(gpus))
    folder = options.flashinfer.resolve() if options.flashinfer else None
    if options.rank is not None:
        _run_rank(options.rank, worlds[0], folder)
    if folder is not None and not (folder / FlashInfer.MODULE).is_file():
        parser.error(f"there is no {folder / FlashInfer.MODULE}")
    if not gpus:
        parser.error("there is no GPU")
    with tempfile.TemporaryDirectory(prefix="muster-flashinfer-") as packages:
        for wheel in folder.glob("apache_tvm_ffi-*.whl") if folder else ():
            zipfile.ZipFile(wheel).extractall(packages)
        paths = [packages, str(folder or ""), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ) | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            # Multicast over NVLink stays off.
            "NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1"}
        beside = options.beside.resolve() if options.beside else None
        if max(worlds) <= gpus:
            return 0 if _run_all(worlds, folder, beside, environment) else 1
        with multi_process_service(environment) as served:
            return 0 if _run_all(worlds, folder, beside, served) else 1


if __name__ == "__main__":
    sys.exit(main())
