"""How many bytes a network's file takes."""

from stillhouse.spec.facts import DataFacts

_HEADER_BYTES = 128
"""Most that the header of a safetensors file says of one tensor: its name, dtype, shape and place."""


def file_bytes(facts: DataFacts, *, numbers: int, tensors: int, norms: int = 0) -> int:
    """Bytes of model.safetensors, never too few and at most about 60 too many for each tensor.

    `numbers` counts parameters and running statistics, `tensors` what holds them, `norms` the batch norms, each of
    which also counts its batches in eight bytes. The normalisation every network begins with is added here.
    """
    numbers, tensors = numbers + 2 * facts.shape[0], tensors + 2 + norms
    return 4 * numbers + 8 * norms + _HEADER_BYTES * tensors + 64
