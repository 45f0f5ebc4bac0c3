"""ONNX Runtime on the CPU, with a stated number of threads, and without its telemetry."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Since 1.29 the Linux wheels report to their maker unless this is set before the first import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from stillhouse.spec.errors import JobFailure
from stillhouse.spec.report import Latency

THREADS = 1
_MANY = 64
_SLOW = 0.1
"""Seconds."""
VERSION: str = onnxruntime.__version__
Array = npt.NDArray[np.float32]
Run = Callable[[Array], Array]
"""Rows [N, …] → logits [N, classes]."""


def failed(reason: str) -> JobFailure:
    """The student could not be written as ONNX."""
    return JobFailure(
        "export_failed",
        f"The student could not be exported to ONNX: {reason}.",
        hint="Set export.onnx to false to get the torch student alone, and report this job.",
    )


class Session:
    """One ONNX file, ready to run: input [N, …] float32 → logits [N, classes].

    Raises JobFailure `export_failed` where ONNX Runtime does not take the graph, or cannot run it.
    """

    def __init__(self, model: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        # Weights beside the arena: it grows in powers of two, and would take twice their size.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        source = model if isinstance(model, bytes) else str(model)
        with _refusals():
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Array) -> Array:
        """Logits of `x`."""
        with _refusals():
            logits: Array = self._session.run(["logits"], {"input": x})[0]
        return logits


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # its errors share no base of their own
        if "alloc" in str(error):
            raise MemoryError from None
        raise failed("ONNX Runtime does not run the graph") from error


def latencies(run: Run, rows: Array) -> list[Latency]:
    """Time of a pass of one row and of 64 of `rows`. Where 64 would take longer than 0.1 s, judged by one, they are not
    timed: so large a network keeps the processor busy with one row, and 64 take about 64 times as long."""
    one = latency(run, rows, batch=1)
    if one.median_ms * _MANY > 1000 * _SLOW:
        return [one]
    return [one, latency(run, rows, batch=_MANY)]


def latency(run: Run, rows: Array, *, batch: int) -> Latency:
    """Time of one forward pass of `batch` rows, taken from `rows` in turn."""
    x = np.resize(rows, (batch, *rows.shape[1:]))
    _warm_up(run, x)
    seconds: list[float] = []
    spent = 0.0
    # 10 runs give a median and a p90; a slow network is stopped after 0.1 s, a fast one gives more runs in 0.02 s.
    while (len(seconds) < 10 or spent < 0.02) and spent < _SLOW:
        begun = time.perf_counter()
        run(x)
        seconds.append(time.perf_counter() - begun)
        spent += seconds[-1]
    median, p90 = np.quantile(seconds, [0.5, 0.9]) * 1000
    return Latency(
        batch=batch,
        median_ms=round(float(median), 4),
        p90_ms=round(float(p90), 4),
        runs=len(seconds),
        threads=THREADS,
    )


def _warm_up(run: Run, x: Array) -> None:
    """Up to 5 runs, until they have taken 20 ms: the first costs the memory it asks for, a few ms."""
    begun = time.perf_counter()
    for _ in range(5):
        run(x)
        if time.perf_counter() - begun > 0.02:
            break
