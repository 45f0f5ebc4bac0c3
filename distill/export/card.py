"""README.md of a student: what it is, what was measured, how to use it. Hugging Face reads the header."""

import json
from collections.abc import Sequence

from distill.model import CONFIG, WEIGHTS
from stillhouse.spec import JobSpec
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.report import Measured, Report


def card(spec: JobSpec, config: ModelConfig, report: Report, *, onnx: bool) -> str:
    """The whole card as Markdown."""
    name = spec.name or f"{config.architecture.name} student"
    sections = [
        _header(config, report, name),
        f"# {name}\n\nA student distilled from a larger teacher by Stillhouse, for {config.facts.task}.",
        _table(report),
        _findings(report),
        _feeding(config),
        _torch_use(config),
        _onnx_use(config) if onnx else "",
        _limits(report),
        "`sha256sum -c SHA256SUMS` checks the files.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _feeding(config: ModelConfig) -> str:
    facts = config.facts
    lines = ["## What to feed it", config.preprocessing, "Classes, in the order of the logits:", _quoted(facts.classes)]
    if facts.features:
        columns = [
            f.name if f.kind == "numeric" else f"{f.name} = {c}" for f in facts.features for c in f.categories or ("",)
        ]
        lines += ["Inputs, in order:", _quoted(columns)]
    return "\n\n".join(lines)


def _quoted(names: Sequence[str]) -> str:
    """Names a customer chose, as one indented line of JSON: nothing in them is Markdown there."""
    shown = json.dumps(list(names[:50]), ensure_ascii=False)
    rest = f"  … {len(names) - 50} more in {CONFIG}" if len(names) > 50 else ""
    return f"    {shown}{rest}"


def _header(config: ModelConfig, report: Report, name: str) -> str:
    student = next(model for model in report.models if model.role == "student")
    task = config.facts.task
    metric = {"type": "accuracy", "value": round(student.accuracy, 6), "name": "Accuracy"}
    result = {"task": {"type": task}, "dataset": {"name": "the test split", "type": "private", "split": "test"}}
    index = [{"name": name, "results": [{**result, "metrics": [metric]}]}]
    tags = ["stillhouse", "knowledge-distillation", config.architecture.name]
    # JSON is YAML: no name a customer chose can break out of its quotes.
    fields = {"library_name": "stillhouse", "pipeline_tag": task, "tags": tags, "metrics": ["accuracy"]}
    lines = [f"{key}: {json.dumps(value)}" for key, value in {**fields, "model-index": index}.items()]
    return "\n".join(["---", *lines, "---"])


def _table(report: Report) -> str:
    head = "| | network | accuracy (95 % interval) | errors | agrees with teacher | parameters | size | 1 row |"
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    return f"## Measured on {report.models[0].rows:,} test rows\n\n" + "\n".join(
        rows + [_row(m) for m in report.models]
    )


def _row(model: Measured) -> str:
    low, high = model.accuracy_interval
    agreement = "–" if model.agreement is None else _percent(model.agreement)
    latency = next((f"{entry.median_ms:.3g} ms" for entry in model.latency if entry.batch == 1), "–")
    return (
        f"| {model.role} | {model.architecture} | {_percent(model.accuracy)} ({low:.1%} – {high:.1%}) | {model.errors} "
        f"| {agreement} | {model.parameters:,} | {model.size_bytes / 1e6:.3g} MB | {latency} |"
    )


def _percent(share: float) -> str:
    """What is not all is never shown as 100 %."""
    return "99.99%" if 0.9999 < share < 1 else f"{share:.2%}"


def _findings(report: Report) -> str:
    lines = []
    if any(model.role == "baseline" for model in report.models):
        lines.append("The baseline is the same network trained on the labels alone, with the same seed and budget.")
    if report.gap_recovered is not None and report.gap_recovered > 1:
        lines.append("The student has more than the teacher's whole lead over the baseline.")
    elif report.gap_recovered is not None and report.gap_recovered > 0:
        lines.append(f"The student has {report.gap_recovered:.0%} of the teacher's lead over the baseline.")
    elif report.gap_recovered is not None:
        lines.append("The student has none of the teacher's lead over the baseline: here distillation did not help.")
    timed = [entry for model in report.models for entry in model.latency if entry.batch == 1]
    if timed:
        runs = min(entry.runs for entry in timed)
        lines.append(f"Times: ONNX Runtime on a CPU with {timed[0].threads} thread, median of {runs} runs or more.")
    return " ".join(lines)


def _torch_use(config: ModelConfig) -> str:
    shape = ", ".join(map(str, config.facts.shape))
    return f"""## Use it from torch

`{WEIGHTS}` and `{CONFIG}` are enough, with the `engine` extra of Stillhouse installed.

```python
import torch
from distill import load

model = load(".")
with torch.no_grad():
    probabilities = model(torch.zeros(1, {shape})).softmax(1)
print(probabilities.argmax(1))
```"""


def _onnx_use(config: ModelConfig) -> str:
    shape = ", ".join(map(str, config.facts.shape))
    return f"""## Use it from ONNX Runtime

```python
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # recent versions report usage unless told not to

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {{"input": np.zeros((1, {shape}), dtype=np.float32)}})[0]
print(logits.argmax(1))
```"""


def _limits(report: Report) -> str:
    general = (
        "It knows the classes above and no others: it gives one of them for any input, however strange. "
        "Its accuracy holds for data like the test split; elsewhere, measure again."
    )
    return "\n\n".join(["## Limits", general, *[f"- {warning}" for warning in report.warnings]])
