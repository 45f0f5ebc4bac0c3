"""Uploads and look-ups, against the real service."""

import random
from pathlib import Path

import pytest

from stillhouse.client.upload import name_of
from stillhouse.spec import LOSSES, STUDENTS
from stillhouse.spec.errors import Invalid, InvalidData, NotFound, TooLarge, UnsupportedMedia
from tests.client.test_download import Tampering
from tests.house import SPEC, House
from tests.ingest.making import good_objects, jsonl


def table(rows: int = 60) -> str:
    """A small CSV of two classes."""
    stream = random.Random(1)
    lines = [f"{stream.random():.4f},{stream.random():.4f},{'yes' if i % 2 else 'no'}" for i in range(rows)]
    return "\n".join(["a,b,answer", *lines]) + "\n"


def test_a_table_is_uploaded_listed_and_used(house: House, tmp_path: Path) -> None:
    path = tmp_path / "answers (1).csv"
    path.write_text(table())
    told: list[tuple[str, int, int]] = []
    with house.client() as client:
        made = client.datasets.add(path, label="answer", test=0.2, seed=3, on_progress=lambda *now: told.append(now))
        assert made.name == "answers _1_.csv"
        assert made.format == "csv"
        assert made.facts.classes == ("no", "yes")
        assert made.facts.rows["test"] == 12
        assert client.datasets.get(made.id) == made
        assert made in list(client.datasets.list())
        job = client.jobs.create(SPEC | {"dataset": {"id": made.id}})
        assert job.resolved.task == "tabular-classification"
    assert told[-1] == (path.name, path.stat().st_size, path.stat().st_size)


def test_the_body_goes_out_with_its_length_and_digest(house: House, tmp_path: Path) -> None:
    network = Tampering(lambda request, response: response)
    path = tmp_path / "answers.csv"
    path.write_text(table())
    with house.client(http_transport=network) as client:
        client.datasets.add(path, name="answers", label="answer")
    headers = network.requests[0].headers
    assert headers["content-length"] == str(path.stat().st_size)
    assert headers["repr-digest"].startswith("sha-256=:")
    assert "transfer-encoding" not in headers


def test_bad_rows_are_refused_by_number_or_dropped_on_request(house: House, tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text(table() + ",,yes\n")
    with house.client() as client:
        with pytest.raises(InvalidData, match="61"):
            client.datasets.add(path, label="answer")
        made = client.datasets.add(path, label="answer", bad_rows="drop")
        assert made.report.rows_dropped == 1
        assert made.report.dropped[0].row == "61"


def test_json_lines_are_told_by_their_bytes_and_their_format_can_be_said(house: House, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(jsonl(good_objects(60)))
    with house.client() as client:
        assert [client.datasets.add(path, format=said).format for said in (None, "jsonl")] == ["jsonl", "jsonl"]
        with pytest.raises(UnsupportedMedia, match="JSON lines"):
            client.datasets.add(path, format="csv")


def test_options_that_cannot_be_right_are_refused_before_the_file_is_sent(house: House, tmp_path: Path) -> None:
    network = Tampering(lambda request, response: response)
    path = tmp_path / "answers.csv"
    path.write_text(table())
    with house.client(http_transport=network) as client, pytest.raises(Invalid) as caught:
        client.datasets.add(path, test=1.5)
    assert [error.pointer for error in caught.value.errors] == ["?test"]
    assert network.requests == []


def test_a_file_that_is_not_there_is_the_callers_own_error(house: House, tmp_path: Path) -> None:
    with house.client() as client, pytest.raises(FileNotFoundError):
        client.datasets.add(tmp_path / "nothing.csv")


def test_an_upload_refused_while_it_is_sent_tells_why(house: House, tmp_path: Path) -> None:
    """The service answers 413 and closes while bytes are on their way: the reason must not be lost in the noise."""
    limit = house.settings.limits.max_upload_bytes
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(2 * limit)  # sparse: takes no space
    with house.client() as client, pytest.raises(TooLarge):
        client.datasets.add(path)


def test_a_dataset_that_does_not_exist_is_not_found(house: House) -> None:
    with house.client() as client, pytest.raises(NotFound):
        client.datasets.get("ds_" + "0" * 26)


@pytest.mark.parametrize(
    ("file", "name"), [("iris.csv", "iris.csv"), (".hidden", "_hidden"), ("a,b;c.csv", "a_b_c.csv"), ("é.csv", "é.csv")]
)
def test_a_dataset_is_called_like_its_file_as_far_as_that_is_a_name(file: str, name: str) -> None:
    assert name_of(Path(file)) == name


def test_models_and_catalogues_can_be_read(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        house.succeed(house.take_up(job.id), {})
        newest = next(client.models.list())
        assert newest.job_id == job.id
        assert client.models.get(newest.id) == newest
        assert [entry.name for entry in client.students().data] == list(STUDENTS)
        assert [entry.name for entry in client.losses().data] == list(LOSSES)
        assert client.version().version
        assert client.ready().checks == {"database": "ok", "broker": "ok", "storage": "ok"}
