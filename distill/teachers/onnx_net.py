"""An ONNX graph as a module that learns nothing: ONNX Runtime on the CPU behind it."""

import os

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

# Since 1.29 the Linux wheels report to their maker unless this is set before the first import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from distill.teachers.axes import in_batches
from stillhouse.spec.teachers import OnnxNet

_ERRORS_ONLY = 3


class OnnxModule(nn.Module):
    """Rows [N, …] float32, prepared, on any device → the graph's output [N, …] float32, on the same.

    No gradient flows through it. Threads are torch's own number when it runs; the same number gives the same bits.
    """

    def __init__(self, data: bytes, net: OnnxNet) -> None:
        super().__init__()
        self._data, self._net = data, net
        self._session: tuple[int, onnxruntime.InferenceSession] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The named output of the graph. Raises RuntimeError when ONNX Runtime does."""
        return in_batches(x.detach().cpu(), self._net.batch, self._run).to(x.device)

    def _run(self, rows: Tensor) -> Tensor:
        try:
            found = self._ready().run([self._net.output], {self._net.input: _as(rows, self._net.dtype)})[0]
        except Exception as error:  # noqa: BLE001 (its classes share no base of their own)
            if "alloc" in str(error):
                raise MemoryError from None
            raise RuntimeError(f"ONNX Runtime: {_reason(error)}") from None
        given = torch.from_numpy(np.asarray(found)).float()
        # Pooling may leave two axes of one pixel behind the classes.
        return given.flatten(1) if given.dim() > 2 and given.shape[2:].numel() == 1 else given

    def _ready(self) -> onnxruntime.InferenceSession:
        threads = torch.get_num_threads()
        if self._session is None or self._session[0] != threads:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = _ERRORS_ONLY
            options.use_deterministic_compute = True
            # From bytes: a graph in memory has no folder, and so no other file to refer to.
            session = onnxruntime.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])
            self._session = threads, session
        return self._session[1]


def _as(x: Tensor, dtype: str) -> npt.NDArray[np.generic]:
    kind = np.dtype(dtype)
    values = x.contiguous().numpy()
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        # The largest 64-bit integers are no floats: the bounds of 32 bits are enough for any pixel.
        low, high = max(limits.min, -(2**31)), min(limits.max, 2**31 - 128)
        return values.round().clip(low, high).astype(kind)
    return values.astype(kind)


def _reason(error: Exception) -> str:
    _, _, said = str(error).partition("Status Message: ")
    return next(iter((said or str(error)).splitlines()), type(error).__name__)
