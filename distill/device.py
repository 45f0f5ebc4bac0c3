"""Where the numbers are worked out, and the process-wide switches that make them repeatable."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

from stillhouse.spec.errors import JobFailure
from stillhouse.spec.job import Resources

# Numbers of glibc's <malloc.h>, and where its own adaptation of the two ends on 64 bits.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_ADAPTED = 32 * 2**20
# How torch's allocator says it on a CPU; oneDNN, whose kernels exist for every network we have; and C++.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "could not create a primitive", "std::bad_alloc")
# Of x86 and of ARM, as torch names them.
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
Precision = Literal["fp32", "bf16"]
MKL_REPRODUCIBLE = ("MKL_CBWR", "AUTO")
"""An environment variable and its value: conditional numerical reproducibility, on the best instructions there are."""


def pick(resources: Resources) -> torch.device:
    """The device a job runs on. Raises JobFailure `device_unavailable`."""
    there = torch.cuda.is_available() if resources.device != "cpu" else False
    if resources.device == "cuda" and not there:
        raise JobFailure(
            "device_unavailable",
            "The spec asks for cuda, and this worker has no usable CUDA device.",
            hint="Set resources.device to auto or cpu, or run the job on a worker with a GPU.",
        )
    return torch.device("cuda", torch.cuda.current_device()) if there else torch.device("cpu")


@contextmanager
def repeatable(device: torch.device, threads: int | None) -> Iterator[None]:
    """Fix the thread count (sums depend on it), ask CUDA for deterministic kernels, and put everything back after.

    Random numbers drawn inside leave the caller's streams untouched.
    """
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    # MKL reads this at its first matrix product. Then a row's bits do not depend on how it lies in memory.
    os.environ.setdefault(*MKL_REPRODUCIBLE)
    if device.type == "cuda":
        # cuBLAS reads this when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[device.index] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


def bits_depend_on(device: torch.device) -> list[str]:
    """What decides in which order numbers are added here."""
    if device.type == "cuda":
        return [device.type, torch.__version__, torch.cuda.get_device_name(device)]
    cpu = [str(torch.get_num_threads()), torch.backends.cpu.get_cpu_capability(), os.environ.get("MKL_CBWR", "")]
    return [device.type, torch.__version__, *cpu]


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16. A CPU without them emulates it, up to 70 times slower than
    float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in _BF16_INSTRUCTIONS)


def precision_here(asked: Precision, device: torch.device) -> Precision:
    """The precision a pass that `asked` for one really has on the device."""
    return asked if has_bf16(device) else "fp32"


def arithmetic(asked: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The arithmetic of a forward pass; the backward pass follows it. bf16 only where the device has it."""
    half = precision_here(asked, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


@contextmanager
def heap_kept() -> Iterator[None]:
    """Have the C library keep freed memory for the next step instead of giving it back to the kernel.

    A step of training frees all its activations at its end. glibc then returns those pages, and the next step has every
    one of them zeroed again: a third of a small network's time. Elsewhere (musl, macOS) nothing is changed.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, 512 * 2**20)
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_ADAPTED)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_ADAPTED)
        give_back()


def give_back() -> None:
    """Return what `heap_kept` keeps: between stages that need memory of different sizes it would only add up."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@contextmanager
def memory_guard() -> Iterator[None]:
    """Turn every way torch says that memory ran out into JobFailure `out_of_memory`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory() from error
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_MEMORY):
            raise _out_of_memory() from error
        raise


def _out_of_memory() -> JobFailure:
    return JobFailure(
        "out_of_memory",
        "The job needed more memory than this worker has.",
        hint="Lower training.batch_size, take a narrower network, or run on a worker with more memory.",
    )
