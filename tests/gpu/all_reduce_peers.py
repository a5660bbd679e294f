"""How others reduce partial sums over ranks, add the residual and norm the result."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.nn.functional import rms_norm

EPS = 1e-5
# The new residual, and its norm times the weight.
Operation = Callable[[], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Inputs:
    """Of one operation, all bfloat16: own partial sum and residual [tokens, hidden], weight [hidden]."""

    partial: torch.Tensor
    residual: torch.Tensor
    weight: torch.Tensor


class Peer(Protocol):
    name: str

    def operation(self, inputs: Inputs) -> Operation | None:
        """None where there are more elements than it can take."""


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


class FlashInfer:
    """Its fused operation, one shot, which is its own choice at every size measured here.

    Args:
      folder: its module, MODULE, compiled ahead of time.
      most: elements of the largest operation.
      most_resident: the same, of what fits on the GPU together with the blocks that it waits for.
    """

    name = "FlashInfer"
    MODULE = "so/trtllm_comm/trtllm_comm.so"
    # Of its interface.
    _ALL_REDUCE_RESIDUAL_NORM = 1
    _FLAG_BYTES = 256 * 4
    _ALIGNMENT = 2 << 20
    _LAMPORT_BOXES = 3

    def __init__(self, folder: Path, most: int, most_resident: int):
        import tvm_ffi
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._most_resident = most_resident
        self._library = tvm_ffi.load_module(str(folder / self.MODULE))
        self._workspace = self._exchange(self._world * most * 2)

    def _exchange(self, message: int) -> torch.Tensor:
        """Addresses of three buffers of every rank, then of this rank's counters."""
        runtime = _Runtime()
        addresses = []
        for size in (message, self._world * self._FLAG_BYTES, self._LAMPORT_BOXES * message):
            own = runtime.allocate(-(-size // self._ALIGNMENT) * self._ALIGNMENT)
            handles: list[Any] = [None] * self._world
            dist.all_gather_object(handles, runtime.export(own))
            addresses += [own if peer == self._rank else runtime.open(handle)
                          for peer, handle in enumerate(handles)]
        lamport = addresses[2 * self._world + self._rank]
        self._library.trtllm_lamport_initialize(
            lamport, self._LAMPORT_BOXES * message // 2, torch.float16)
        counters = runtime.allocate(32)
        runtime.write(counters + 12, message.to_bytes(4, "little"))
        torch.cuda.synchronize()
        dist.barrier()
        return torch.tensor([*addresses, counters], dtype=torch.int64, device="cuda")

    def operation(self, inputs: Inputs) -> Operation | None:
        if inputs.partial.numel() > self._most_resident:
            return None
        tokens, hidden = inputs.partial.shape
        residual, norm = (torch.full_like(inputs.residual, float("nan")) for _ in range(2))

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            self._library.trtllm_allreduce_fusion(
                inputs.partial, self._world, self._rank, tokens, hidden, self._workspace,
                True,  # dependent launch
                True,  # one shot
                True,  # completion is told at the end
                False,  # float32 sums
                self._ALL_REDUCE_RESIDUAL_NORM, None, inputs.residual, residual, norm, None, None,
                inputs.weight, EPS, None, None, None, None)
            return residual, norm

        return run


class SymmetricMemory:
    """PyTorch's all-reduce over symmetric memory, which its producer has written to, then add and norm.

    Args:
      most: elements of the largest operation.
      shots: 1 or 2.
    """

    def __init__(self, most: int, shots: int):
        from torch.distributed import _symmetric_memory
        self.name = f"symmetric memory, {('one shot', 'two shots')[shots - 1]}"
        self._group = dist.group.WORLD.group_name
        self._buffer = _symmetric_memory.empty(most, dtype=torch.bfloat16, device="cuda")
        _symmetric_memory.rendezvous(self._buffer, self._group)
        self._reduce = (torch.ops.symm_mem.one_shot_all_reduce if shots == 1
                        else torch.ops.symm_mem.two_shot_all_reduce_)

    def operation(self, inputs: Inputs) -> Operation | None:
        own = self._buffer[:inputs.partial.numel()].view(inputs.partial.shape)
        own.copy_(inputs.partial)
        hidden = inputs.partial.shape[1]

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            residual = self._reduce(own, "sum", self._group) + inputs.residual
            return residual, rms_norm(residual, (hidden,), inputs.weight, EPS)

        return run
