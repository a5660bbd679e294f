"""What a process holds of the system."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Memory, open files, threads, and memory files that are mapped."""

    resident: int  # KiB
    files: int
    threads: int
    segments: int

    @staticmethod
    def by(pid: int) -> "Held":
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return Held(resident, len(os.listdir(f"/proc/{pid}/fd")),
                    len(os.listdir(f"/proc/{pid}/task")),
                    Path(f"/proc/{pid}/maps").read_text().count("memfd:"))
