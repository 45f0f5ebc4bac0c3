"""Imports paid for once, by the process that forks trainers.

torch loads much of itself on first use: the compiler with the first optimizer, the exporter with the first export.
In a trainer that would be seconds before the first step; in the parent of all trainers it is spent once.
"""

import contextlib
import gc
import importlib

import distill

# What the parent must be started with. OpenBLAS (numpy's) would else keep a thread that nothing here uses, and the
# parent of forks has to have exactly one.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

# Private names of the pinned torch and onnxscript; a test finds out when one is missing here.
_MODULES = (
    "torch._dynamo",  # torch.optim asks for it at the first optimizer
    "torch.export._trace",  # and with it inductor, sympy, networkx
    "torch.export._patches",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._compat",
    "torch.onnx._internal.exporter._torchlib.ops",
    "torch._export.passes._node_metadata_hook",
    "torch._export.passes.replace_autocast_with_hop_pass",
    "torch._export.passes.replace_set_grad_with_hop_pass",
    "torch._functorch._aot_autograd.subclass_parametrization",
    "torch._inductor.compiler_bisector",
    "torch._inductor.fx_passes.dedupe_symint_uses",
    "torch._inductor.sizevars",
    "torch._subclasses.schema_check_mode",
    "torch.fx.experimental.validator",
    "onnxscript.function_libs.torch_lib.ops",
    "onnxscript.rewriter.onnx_fusions",
    "onnxscript._framework_apis.torch_2_11",
    "sympy.tensor.tensor",
    "numpy.ctypeslib",
    "numpy.ma",
    "torchvision.transforms.v2.functional",  # RandAugment
    "multiprocessing.synchronize",  # tqdm, where it is installed and torch.fx shows progress with it
)


def warm() -> None:
    """Import all that a job will use. No thread is started and CUDA is not touched, so forking afterwards is safe."""
    assert distill  # torch, onnx and onnxruntime come with the engine itself
    for name in _MODULES:
        # A patch release may rename one; then a job imports its successor itself, a little later.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # What is here now stays: children need not search it for garbage, nor copy its pages to do so.
    gc.collect()
    gc.freeze()
