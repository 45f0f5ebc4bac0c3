"""The benchmark of methods: what is compared, and how it is judged."""

import math

import numpy as np
import pytest
from pydantic import TypeAdapter

from benchmarks.methods.conditions import ALONE, conditions
from benchmarks.methods.paired import interval, paired, two_sided
from benchmarks.methods.setting import IMAGES_PER_CLASS, transfer_rows
from benchmarks.methods.table import Row, table
from stillhouse.spec.losses import LOSSES, Loss, LossParams

# Hours of sleep gained with two drugs, ten patients: the example of Student 1908, "The probable error of a mean".
FIRST = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SECOND = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def test_the_paired_test_gives_the_figures_of_students_own_example() -> None:
    found = paired(FIRST, SECOND)
    assert found.mean == pytest.approx(-1.58)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert paired(SECOND, FIRST).p == found.p


def test_the_interval_of_students_own_example_is_that_of_the_tables() -> None:
    low, high = interval(FIRST, SECOND)
    reach = 2.262157 * 1.229995 / math.sqrt(10)  # t of nine degrees of freedom, deviation of the differences
    assert (low, high) == (pytest.approx(-1.58 - reach, abs=1e-5), pytest.approx(-1.58 + reach, abs=1e-5))


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (5, 2.570582), (30, 2.042272)]
)
def test_one_time_in_twenty_t_is_beyond_the_value_in_the_tables(freedom: int, t: float) -> None:
    assert two_sided(t, freedom=freedom) == pytest.approx(0.05, abs=1e-6)
    assert two_sided(0.0, freedom=freedom) == 1.0


def test_one_degree_of_freedom_is_the_cauchy_distribution() -> None:
    assert two_sided(-3.0, freedom=1) == pytest.approx(1 - 2 * math.atan(3) / math.pi)


def test_differences_that_do_not_vary_are_certain_or_nothing() -> None:
    assert paired((0.5, 0.75), (0.25, 0.5)).p == 0.0
    assert paired((0.5, 0.75), (0.5, 0.75)).p == 1.0


def test_every_loss_is_compared_beside_the_labels_and_beside_kd() -> None:
    ways = {(c.method, c.beside) for c in conditions()}
    for kind in LOSSES.keys() - {"ce", "kd"}:
        assert {(kind, "ce"), (kind, "kd")} <= ways
    assert {(ALONE, "ce"), ("kd", "ce")} <= ways
    loss = TypeAdapter[LossParams](Loss)
    for condition in conditions():
        assert {type(loss.validate_python(given)) for given in condition.losses} <= {
            LOSSES[kind] for kind in (condition.method, "kd", "ce") if kind in LOSSES
        }
    assert len(ways) == len(list(conditions()))


def test_a_transfer_set_has_as_many_images_of_each_class_and_another_seed_others() -> None:
    y = np.random.default_rng(7).integers(0, 10, 5_000)
    first, again, other = (transfer_rows(y, seed) for seed in (0, 0, 1))
    assert np.bincount(y[first]).tolist() == [IMAGES_PER_CLASS] * 10
    assert len(np.unique(first)) == len(first)
    assert first.tolist() == again.tolist() != other.tolist()


def test_the_table_has_one_line_for_each_method_with_its_distance_to_both_references() -> None:
    rows = [
        Row(ALONE, "", "ce", (0.90, 0.92)),
        Row("kd", "response", "ce", (0.93, 0.94)),
        Row("vid", "feature", "ce", (0.91, 0.95)),
        Row("vid", "feature", "kd", (0.92, 0.93)),
    ]
    lines = table(rows).splitlines()
    assert len(lines) == 2 + 3
    assert lines[2].startswith("| – | student alone | 91.00 % ± 1.41 | – | -2.50 (")
    vid = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert vid[:3] == ["feature", "vid", "93.00 % ± 2.83"]
    assert vid[3].startswith("+2.00 (")
    assert vid[4].startswith("-0.50 (")
    assert vid[5] == "92.50 % ± 0.71"
    assert vid[7] == "-1.00 (p < 0.001)"
