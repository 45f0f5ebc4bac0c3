"""From a torch network to one ONNX file that gives the same answers."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from distill.data import Dataset
from distill.export.layers import UnknownLayerError, written
from distill.export.runtime import Session, failed
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.report import OnnxCheck

OPSET = 20
INPUT, OUTPUT = "input", "logits"


def to_onnx(net: nn.Module, config: ModelConfig) -> bytes:
    """One self-contained ONNX file of `net`, on the CPU and in eval mode: `input` [batch, …] float32 → `logits` [batch,
    classes].

    Its metadata holds the classes and how to feed it. Raises JobFailure `export_failed`.
    """
    content: bytes = _model(net, config).SerializeToString()
    return content


def to_onnx_beside(net: nn.Module, config: ModelConfig, folder: Path) -> Path:
    """The same with the weights in a file beside it: a large network is not held twice more on its way to the disk."""
    path = folder / "model.onnx"
    onnx.save_model(_model(net, config), path, save_as_external_data=True, location="weights")
    return path


def _model(net: nn.Module, config: ModelConfig) -> onnx.ModelProto:
    facts = config.facts
    try:
        model = written(net, facts.shape, len(facts.classes), opset=OPSET)
    except UnknownLayerError:
        model = _traced(net, facts.shape)
        _forget_origin(model)
    onnx.helper.set_model_props(model, _properties(config))
    return model


def _traced(net: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Any network, by torch's own exporter."""
    example = torch.zeros(2, *shape)
    with _quiet():
        try:
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise failed("torch could not translate the network") from error
    assert program is not None
    model = program.model_proto
    # The exporter falls back to a graph for the rows of the example alone, and says nothing.
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise failed("the network depends on the number of rows")
    return model


def check_standard(content: bytes) -> None:
    """Raise JobFailure `export_failed` when a file breaks the ONNX standard or its own shapes."""
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise failed("the file breaks the ONNX standard") from error


def check(session: Session, net: nn.Module, data: Dataset, *, most: int = 1000) -> OnnxCheck:
    """Hold the ONNX file against the torch network on real test rows, in batches of 1, 7 and more.

    Both work in float32 but sum in different orders, so logits may differ by 1e-4 of the largest. The class must be
    the same wherever the two best logits are further apart than that. Raises JobFailure `export_mismatch`.
    """
    x = data.inputs(data.rows["test"][:most]).cpu()
    parts = [p for p in (x[:1], x[1:8], *torch.split(x[8:], 256)) if len(p)]
    with torch.no_grad():
        ours = torch.cat([net(part) for part in parts])  # [n, classes]
    theirs = torch.from_numpy(np.concatenate([session(part.numpy()) for part in parts]))
    tolerance = 1e-4 * max(1.0, float(ours.abs().max()))
    difference = float((ours - theirs).abs().max())
    best = ours.topk(2).values if ours.shape[1] > 1 else torch.zeros(len(ours), 2)
    same = ours.argmax(1) == theirs.argmax(1)
    clear = best[:, 0] - best[:, 1] > tolerance
    if not difference <= tolerance or not bool(same[clear].all()):  # `not <=` also catches NaN
        raise JobFailure(
            "export_mismatch",
            f"model.onnx and the torch student differ by {difference:.2g} in a logit, {tolerance:.2g} is tolerated.",
            hint="Set export.onnx to false to get the torch student alone, and report this job.",
        )
    share = float(same.double().mean())
    return OnnxCheck(rows=len(x), max_abs_difference=difference, tolerance=tolerance, same_class=share)


def _forget_origin(model: onnx.ModelProto) -> None:
    """The exporter notes for each node which source line made it: paths of the worker's disk, for nobody else."""
    graph = model.graph
    for named in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del named.metadata_props[:]
        named.doc_string = ""


def _properties(config: ModelConfig) -> dict[str, str]:
    return {
        "classes": json.dumps(config.facts.classes),
        "preprocessing": config.preprocessing,
        "format": config.format,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about its own insides; none of it is for the owner of a job."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
