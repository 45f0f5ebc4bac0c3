"""Every random stream is a pure function of the job's seed and of what it is for.

Nothing random is carried from one step to the next, so a run taken up at any optimizer step sees the same order,
views and dropout masks as one that was never interrupted.
"""

from hashlib import blake2b

import torch
from torch import Tensor


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as `derive(0, "student", "order", epoch)`."""
    name = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose: the same numbers whatever device trains."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def permutation(rows: int, seed: int, *purpose: str | int) -> Tensor:
    """A random order of `rows` positions, int64 [rows], on the CPU."""
    return torch.randperm(rows, generator=generator(seed, *purpose))


def reseed(device: torch.device, seed: int, *purpose: str | int) -> None:
    """Set the stream that dropout draws from on `device`.

    torch.manual_seed would do the same, but asks every back end first and takes a hundred times as long.
    """
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(derive(seed, *purpose))
    else:
        torch.default_generator.manual_seed(derive(seed, *purpose))
