"""What this worker's machine has, asked of the system: torch would tell the same after seconds of import."""

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

from core.settings import Settings
from models.scheduling import Machine

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def this_machine(settings: Settings) -> Machine:
    """What a trainer of this worker finds."""
    return Machine(cuda=_has_cuda(settings), memory_bytes=_memory_bytes(), cores=_cores())


def _has_cuda(settings: Settings) -> bool:
    visible = settings.cuda_visible_devices
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    if visible is not None and visible.strip() in ("", "-1"):
        return False
    return _torch_is_made_for_cuda() and _count_of_devices() > 0


def _torch_is_made_for_cuda() -> bool:
    found = find_spec("torch")  # looks for it, and runs nothing of it
    folders = [] if found is None else list(found.submodule_search_locations or ())
    return any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders)


def _count_of_devices() -> int:
    """NVIDIA's management library counts without a CUDA context, which must not be inherited by a fork."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() != 0:
        return 0
    answered = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    return count.value if answered == 0 else 0


def _memory_bytes() -> int:
    """Of the machine, or of the container when that may have less."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *filter(None, map(_limit_in, _CGROUP_LIMITS))])


def _limit_in(path: Path) -> int | None:
    try:
        said = path.read_text().strip()
    except OSError:
        return None
    return int(said) if said.isdecimal() else None


def _cores() -> int:
    return len(os.sched_getaffinity(0))
