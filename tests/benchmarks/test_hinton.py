"""The parts of benchmarks/hinton that need no hour: reading the data, cutting it, matching priors, running its jobs."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks.hinton import jobs, mnist, priors, protocol, unseen
from distill.data import read_dataset
from stillhouse.spec import JobSpec, Limits, resolve


@pytest.fixture(scope="module")
def images() -> mnist.Images:
    """Real digits in the size of MNIST's: 8×8 pixels, each tripled, with a rim of two."""
    x, y = load_digits(return_X_y=True)
    tripled = np.kron(x.reshape(-1, 1, 8, 8), np.ones((1, 1, 3, 3))) * 15
    return mnist.Images(np.pad(tripled, ((0, 0), (0, 0), (2, 2), (2, 2))).astype(np.uint8), y.astype(np.int64))


def test_an_idx_file_is_read_by_its_header() -> None:
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 1, 3) + bytes([1, 2, 3, 253, 254, 255])
    assert mnist.idx(content).tolist() == [[[1, 2, 3]], [[253, 254, 255]]]


@pytest.mark.parametrize(
    "content",
    [
        bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes(3),
        bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes(3),
        bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + bytes(4),
        bytes([1, 0, 8, 1]) + struct.pack(">I", 1) + bytes(1),
    ],
    ids=["cut short", "too long", "floats", "no IDX"],
)
def test_what_is_no_idx_file_of_bytes_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an IDX|the header says"):
        mnist.idx(content)


def test_held_out_images_are_never_trained_on_and_always_the_same(images: mnist.Images) -> None:
    train, held_out = mnist.hold_out(images, 300)
    again = mnist.hold_out(images, 300)[1]
    assert (len(train.y), len(held_out.y)) == (len(images.y) - 300, 300)
    rows = sorted(row.tobytes() for part in (train, held_out) for row in part.x)
    assert rows == sorted(row.tobytes() for row in images.x)
    assert np.array_equal(held_out.x, again.x)
    assert np.array_equal(held_out.y, again.y)


def test_a_transfer_set_without_threes_is_stored_with_all_ten_classes(images: mnist.Images, tmp_path: Path) -> None:
    train = images.only((0, 1, 2, 4, 5, 6, 7, 8, 9))
    facts = mnist.store(tmp_path / "stored.safetensors", train, images)
    data = read_dataset(tmp_path / "stored.safetensors")
    assert data.facts == facts
    assert facts.classes == tuple("0123456789")
    trained, tested = data.y[data.rows["train"]], data.y[data.rows["test"]]
    assert not (trained == 3).any()
    assert np.array_equal(tested, images.y)
    assert np.array_equal(data.inputs(data.rows["train"]), train.x)
    assert data.report.class_counts["train"]["3"] == 0


def test_the_shift_that_matches_a_prior_is_the_difference_of_log_odds_where_all_rows_are_alike() -> None:
    logits = np.tile(np.log([0.5, 0.3, 0.15, 0.05]), (7, 1))
    found = priors.shift(logits, (1, 3), 0.1)
    assert found == pytest.approx(math.log(0.1 / 0.9) - math.log(0.35 / 0.65), abs=1e-5)


def test_shifted_by_it_the_mean_share_over_unequal_rows_is_the_prior() -> None:
    logits = np.random.default_rng(0).normal(scale=8, size=(500, 10)).astype(np.float32)
    by = priors.shift(logits, (7, 8), 0.2)
    moved = priors.shifted(logits, (7, 8), by)
    odds = np.exp(moved)
    assert (odds[:, [7, 8]].sum(1) / odds.sum(1)).mean() == pytest.approx(0.2, abs=1e-5)
    assert np.array_equal(moved[:, :7], logits[:, :7])


def test_every_job_of_the_section_is_a_spec_that_resolves(images: mnist.Images, tmp_path: Path) -> None:
    facts = mnist.store(tmp_path / "stored.safetensors", images, images)
    resolve(JobSpec.model_validate(protocol.teacher().spec), facts, Limits())
    students = list(protocol.students())
    assert len({job.name for job in students}) == len(students)
    for job in students:
        training = resolve(JobSpec.model_validate(job.spec), facts, Limits()).training
        assert job.taught != ("hard" in job.name)
        # Students are not regularised, and what jitter gains is not credited to distillation.
        assert training.weight_decay == 0.0
        assert training.max_norm is None
        assert bool(training.augmentation.crop_padding) == job.name.startswith("jittered")


def test_jobs_run_once_pass_their_teacher_on_and_their_bias_can_be_corrected(
    images: mnist.Images, tmp_path: Path
) -> None:
    train, test = mnist.hold_out(images, 400)
    everything, without_3 = tmp_path / "all.safetensors", tmp_path / "without 3.safetensors"
    facts = mnist.store(everything, train, test)
    facts_without_3 = mnist.store(without_3, train.only((0, 1, 2, 4, 5, 6, 7, 8, 9)), test)

    recipe = {
        "architecture": {"name": "mlp", "hidden": [64]},
        "epochs": 40,
        "learning_rate": 0.003,
        "augmentation": protocol.JITTER,
    }
    teacher = protocol.Job("teacher", {**protocol.teacher().spec, "teacher": {"train": recipe}})
    jobs.run(teacher, everything, facts, None, tmp_path / "teacher", 1)
    model = jobs.teacher_folder(tmp_path / "teacher" / "files", tmp_path / "teacher model")

    student = next(job for job in protocol.students() if job.images == "without 3")
    spec = {**student.spec, "student": {"name": "mlp", "hidden": [64]}}
    spec["training"] = {**spec["training"], "epochs": 60, "batch_size": 64, "precision": "fp32"}
    job = protocol.Job("student", spec, "without 3")
    found = jobs.run(job, without_3, facts_without_3, model, tmp_path / "student", 1)
    again = jobs.run(job, without_3, facts_without_3, model, tmp_path / "student", 1)
    assert again == found

    share = unseen.share_of((3,), train)
    correction = unseen.correct(tmp_path / "student" / "files", (3,), share, train, test)
    assert correction.errors[0] == found.errors
    assert correction.by > 0
    assert correction.errors_on_classes[1] < correction.errors_on_classes[0]
