"""`stillhouse students` for some data."""

import io

import pytest
from rich.console import Console

from stillhouse.cli.render import report_view
from stillhouse.cli.text import percent
from stillhouse.spec.report import Candidate, ChosenStudent, Report
from stillhouse.spec.students import Mlp
from tests.cli.terminal import Here
from tests.house import SPEC, House


def test_students_of_a_shape_are_listed_with_their_cost(say: Here) -> None:
    said = say("students", "--shape", "1,8,8", "--classes", "10")
    assert said.code == 0
    line = next(line for line in said.out.splitlines() if line.startswith("mlp hidden=[32] "))
    assert line.split()[2:4] == ["2,410", "2,368"]
    assert "kB" in line


def test_students_of_a_dataset_are_those_of_its_shape(say: Here, house: House) -> None:
    with house.client() as client:
        dataset = client.jobs.create(SPEC).dataset_id
    assert say("students", "--dataset", dataset).out == say("students", "--shape", "1,8,8", "--classes", "10").out


def test_for_a_table_the_networks_for_images_say_why_they_are_not_listed(say: Here) -> None:
    said = say("students", "--shape", "30", "--classes", "2")
    assert "cnn: a cnn needs images; for a table use mlp" in said.out


def test_a_report_tells_what_a_budget_chose() -> None:
    net = Mlp(name="mlp", hidden=(8,))
    looked_at = [
        Candidate(student=net, parameters=1, macs=1, size_bytes=1, latency_ms=latency, fits=latency == 0.25)
        for latency in (0.5, 0.25)
    ]
    report = Report(
        models=[],
        gap_recovered=None,
        device="cpu",
        chosen_student=ChosenStudent(student=net, candidates=looked_at),
    )
    shown = Console(width=200, record=True, file=io.StringIO())
    shown.print(report_view(report))
    assert (
        "The budget chose mlp hidden=[8]: 0.25 ms a row before training; 1 larger were slower." in shown.export_text()
    )


@pytest.mark.parametrize("words", [("--shape", "8x8"), ("--shape", "1,8,8"), ("--classes", "3"), ("--dataset", "nine")])
def test_what_cannot_be_asked_is_an_error_with_a_sentence(say: Here, words: tuple[str, ...]) -> None:
    said = say("students", *words)
    assert said.code in (1, 2)
    assert said.err.startswith("Error: ")
    assert said.out == ""


def test_what_is_not_all_is_never_shown_as_all() -> None:
    assert [percent(share) for share in (None, 0.98515, 1 - 1 / 60_000, 1.0)] == ["–", "98.52 %", "99.99 %", "100.00 %"]
