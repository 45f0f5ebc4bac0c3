"""The teacher's logits over the training split: computed once, in float32, and kept for later jobs."""

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from distill.data import Dataset
from distill.evaluate import not_finite
from distill.reporter import Reporter


@torch.no_grad()
def teacher_logits(teacher: nn.Module, data: Dataset, reporter: Reporter) -> Tensor:
    """Logits [train rows, classes] float32 on the data's device, in the order of the training split.

    Raises JobFailure `outputs_not_finite`.
    """
    teacher.eval()
    # One place for all, as in `measure`: small tensors kept from each chunk would make the heap grow.
    logits, done = torch.empty(len(data.rows["train"]), len(data.facts.classes), device=data.x.device), 0
    for step, rows in enumerate(data.chunks("train"), start=1):
        logits[done : done + len(rows)] = teacher(data.inputs(rows))
        done += len(rows)
        reporter.advance(step=step)
    if not logits.isfinite().all():
        raise not_finite("on the training split: the teacher cannot teach")
    return logits


def cache_key(dataset: Path, teacher: str, device: torch.device) -> str:
    """What the logits depend on, down to the last bit: data, teacher (its fingerprint), and the arithmetic of this
    machine."""
    with dataset.open("rb") as file:
        dataset_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    arithmetic = [torch.__version__, str(torch.get_num_threads()), torch.backends.cpu.get_cpu_capability()]
    if device.type == "cuda":
        arithmetic = [torch.__version__, torch.cuda.get_device_name(device)]
    parts = ["logits/2", dataset_sha256, teacher, device.type, *arithmetic]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_cached(cache: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """Logits an earlier job kept, or None when there are none, or the file is damaged: they can be made again."""
    try:
        with safe_open(cache / f"{key}.safetensors", framework="pt") as file:
            logits: Tensor = file.get_tensor("logits").clone()
    except (OSError, SafetensorError):
        return None
    sound = logits.shape == shape and logits.dtype == torch.float32 and bool(logits.isfinite().all())
    return logits if sound else None


def keep(cache: Path, key: str, logits: Tensor) -> bool:
    """Store logits under `key`: whole or not at all. False when the disk would not take them; nothing is lost."""
    temporary = cache / f".{key}.{secrets.token_hex(4)}"
    try:
        with temporary.open("xb") as file:
            file.write(save({"logits": logits.cpu().contiguous()}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(cache / f"{key}.safetensors")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return False
    return True
