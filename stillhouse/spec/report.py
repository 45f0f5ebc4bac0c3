"""What a finished job measured. Every number here was measured in that job; what was not is None."""

from pydantic import Field

from stillhouse.spec.base import View
from stillhouse.spec.facts import Split
from stillhouse.spec.students import Architecture
from stillhouse.spec.teacher_outputs import TeacherOutputs


class Latency(View):
    """Time of one forward pass through ONNX Runtime on the worker's CPU. A teacher that came as an ONNX graph is timed
    with its preprocessing, in batches of its own size where that is fixed."""

    batch: int
    median_ms: float
    p90_ms: float
    runs: int
    threads: int
    remembered: bool = False
    """Measured in an earlier job on this machine, within a day, and not again."""


class Measured(View):
    """One model on the test split."""

    role: str
    """teacher, student, or baseline: the same student trained without a teacher."""
    architecture: str
    """A short description, such as `mlp 64-1200-1200-10`."""
    accuracy: float
    """Share of test rows classified right."""
    accuracy_interval: tuple[float, float]
    """95 % Wilson interval of the accuracy: what that many rows can tell."""
    errors: int
    rows: int
    loss: float
    """Cross-entropy with the labels, nats per row."""
    agreement: float | None
    """Share of test rows on which it gives the teacher's class. None for the teacher."""
    parameters: int
    size_bytes: int
    """model.safetensors of this model."""
    latency: list[Latency] = Field(default_factory=list)
    """Of 1 row and of 64, or of 1 alone where 64 would take longer than 0.1 s. Empty when the model was not exported,
    and of the baseline: it is the student's network."""
    balanced_accuracy: float | None = None
    """Mean of `per_class_accuracy` over the classes that have test rows (macro recall): every class counts alike. None
    in reports from before it was measured."""
    per_class_accuracy: dict[str, float | None]


class StageTime(View):
    """Seconds one phase took."""

    phase: str
    seconds: float


class OnnxCheck(View):
    """model.onnx against the torch student on real test rows."""

    rows: int
    max_abs_difference: float
    """Largest difference of any logit."""
    tolerance: float
    same_class: float
    """Share of rows with the same class."""


class TargetResult(View):
    """One stated target."""

    name: str
    wanted: float
    measured: float
    met: bool


class LayersCompared(View):
    """A layer of the student and the layer of the teacher it learnt from."""

    student: str
    """Path of the layer in the network."""
    teacher: str
    student_shape: list[int]
    """Of its output for one row: [C, H, W] of a map, [F] of a vector."""
    teacher_shape: list[int]


class Candidate(View):
    """A network that a budget could have chosen."""

    student: Architecture
    parameters: int
    macs: int
    size_bytes: int
    """Of model.safetensors, rounded up."""
    latency_ms: float | None
    """Median of one row through ONNX Runtime on the worker's CPU; None when it was not measured or could not be."""
    fits: bool


class ChosenStudent(View):
    """What a budget chose."""

    student: Architecture
    candidates: list[Candidate]
    """Those that were looked at on the worker, from the largest down; the last is the student."""


class Report(View):
    """report.json."""

    models: list[Measured]
    """Teacher, student and, unless switched off, baseline."""
    chosen_student: ChosenStudent | None = None
    """When the spec gives a budget."""
    split: Split = "test"
    gap_recovered: float | None
    """(student - baseline) / (teacher - baseline) in accuracy; None without a baseline or a better teacher."""
    targets: list[TargetResult] = Field(default_factory=list)
    onnx: OnnxCheck | None = None
    stages: list[StageTime] = Field(default_factory=list)
    epochs_run: dict[str, int] = Field(default_factory=dict)
    """Epochs each stage really ran (early stopping may end one)."""
    layer_pairs: dict[str, list[LayersCompared]] = Field(default_factory=dict)
    """Kind of each loss that looks at layers → those it compared."""
    teacher_outputs: TeacherOutputs | None = None
    """As resolved: how the teacher's outputs reached the student, and why so. None in older reports."""
    device: str
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of what made the numbers."""
    warnings: list[str] = Field(default_factory=list)
    """What a careful reader must know: a teacher no better than the baseline, leaked duplicates …"""

    def of(self, role: str) -> Measured | None:
        """The row of `role`."""
        return next((m for m in self.models if m.role == role), None)
