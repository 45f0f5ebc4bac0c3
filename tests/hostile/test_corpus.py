"""Every hostile input gets the answer it must get, and nothing of it stays."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from ingest.run import run
from stillhouse.spec.errors import Problem, StillhouseError
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestOptions, IngestRequest
from tests.hostile import archives, arrays, images, requests, specs, tables, teachers
from tests.hostile.case import Case, Raw
from tests.hostile.server import LIMITS, MEBIBYTE, Service

# All in one process: they share the service, and the last test looks at what all of them left.
pytestmark = pytest.mark.xdist_group("hostile")

LARGE = os.environ.get("STILLHOUSE_FUZZ") == "large"
"""`make fuzz` sends every file to the live service; `make test` each third, for the time a reader takes to start."""

UPLOADS = [*archives.CASES, *images.CASES, *tables.CASES, *arrays.CASES]
LIVE = [*UPLOADS, *teachers.CASES] if LARGE else [*UPLOADS[::3], *teachers.CASES[::4]]
OTHERS = [*specs.CASES, *requests.CASES]
_LEAKS = ("Traceback", "/tmp/", "site-packages", 'File "', "psycopg", "sqlalchemy")


@pytest.fixture(scope="module")
def caller(on_postgres: Service) -> Iterator[httpx2.Client]:
    with on_postgres.client() as client:
        yield client


@pytest.fixture(scope="module", params=["on_postgres", "on_sqlite"])
def service(request: pytest.FixtureRequest) -> Service:
    """What one database takes without a murmur, the other may not: NULs, numbers of more than 64 bits."""
    found: Service = request.getfixturevalue(request.param)
    with found.client() as client:
        assert client.post(specs.JOBS, content=specs.spec(), headers=specs.JSON).status_code == 200
    return found


def named(case: Case | Raw) -> str:
    return case.name


def test_the_corpus_has_no_two_cases_of_one_name() -> None:
    names = [case.name for case in [*UPLOADS, *teachers.CASES, *OTHERS, *requests.RAW]]
    assert len(names) > 150
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", UPLOADS, ids=named)
def test_the_reader_takes_or_refuses_a_file_as_it_must(tmp_path: Path, case: Case) -> None:
    (tmp_path / "upload").write_bytes(case.body())
    said = dict(parse_qsl(urlsplit(case.path).query))
    options = {name: (value,) if name == "ignore" else value for name, value in said.items()}
    for name in ("name", "format"):
        options.pop(name, None)
    request = IngestRequest(
        source=str(tmp_path / "upload"),
        output=str(tmp_path / "stored"),
        format=said.get("format", "auto"),  # type: ignore[arg-type]
        options=IngestOptions.model_validate(options),
        limits=Limits(**{name.lower(): value for name, value in LIMITS.items()}),  # type: ignore[arg-type]
    )
    if case.code:
        with pytest.raises(StillhouseError) as caught:
            run(request)
        check_problem(caught.value.problem(), case)
    else:
        run(request)
    assert {path.name for path in tmp_path.iterdir()} == {"upload", *([] if case.code else ["stored"])}


@pytest.mark.parametrize("case", LIVE, ids=named)
def test_an_upload_gets_its_answer_and_leaves_nothing(caller: httpx2.Client, on_postgres: Service, case: Case) -> None:
    rows, files = on_postgres.rows(), on_postgres.files()
    answer = caller.request(case.method, case.path, content=case.body(), headers=dict(case.headers))
    check(answer, case)
    if case.status == 201:
        forget(caller, on_postgres, answer, rows)
    else:
        assert on_postgres.rows() == rows
        assert on_postgres.files() == files
    assert on_postgres.children() == []


@pytest.mark.parametrize("case", OTHERS, ids=named)
def test_a_request_gets_its_answer_and_leaves_nothing(service: Service, case: Case) -> None:
    rows = service.rows()
    with service.client() as caller:
        answer = caller.request(case.method, case.path, content=case.body(), headers=dict(case.headers))
    check(answer, case)
    assert service.rows() == rows


@pytest.mark.parametrize("case", requests.RAW, ids=named)
def test_bytes_on_a_connection_get_their_answers_and_no_more(on_sqlite: Service, case: Raw) -> None:
    got = b""
    # Longer than the service keeps an idle connection, which is what ends one behind an upgrade.
    with socket.create_connection(("127.0.0.1", on_sqlite.port), timeout=90) as connection:
        connection.sendall(case.sent(on_sqlite.key))
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                got += data
    assert tuple(map(int, re.findall(rb"HTTP/1\.1 (\d+) ", got))) == case.statuses
    if case.code:
        assert Problem.model_validate_json(got.rpartition(b"\r\n\r\n")[2]).code == case.code


def test_no_request_was_too_odd_to_be_written_down(on_postgres: Service, on_sqlite: Service) -> None:
    for service in (on_postgres, on_sqlite):
        log = (service.folder / "log").read_text()
        assert "not stored" not in log
        assert "Traceback" not in log


def check(answer: httpx2.Response, case: Case) -> None:
    """The status, and a problem that says where and how to mend it."""
    assert answer.status_code == case.status, answer.text
    assert answer.status_code == 400 or answer.headers["x-request-id"]
    assert not [leak for leak in _LEAKS if leak in answer.text]
    if answer.status_code < 400:
        return
    assert answer.headers["content-type"] == "application/problem+json"
    check_problem(Problem.model_validate_json(answer.content), case)


def check_problem(problem: Problem, case: Case) -> None:
    """What is wrong, where, and what to do."""
    assert (problem.status, problem.code) == (case.status, case.code), problem
    assert problem.detail.endswith((".", ")"))
    if "/file" in case.pointer:
        assert problem.hint, "the way out is named"
    if case.entry or case.pointer:
        found = [(e.code, e.pointer) for e in problem.errors]
        assert any(case.entry in ("", code) and at.startswith(case.pointer) for code, at in found), problem


def forget(caller: httpx2.Client, service: Service, answer: httpx2.Response, before: dict[str, int]) -> None:
    """What is good is one row and one file; away with it."""
    after = service.rows()
    assert {name: after[name] - count for name, count in before.items() if after[name] != count} == {"dataset": 1}
    assert list((service.folder / "data" / "work" / "uploads").iterdir()) == []
    assert caller.delete(answer.headers["location"]).status_code == 200


def test_after_all_of_it_the_service_is_as_small_as_before_and_answers(
    caller: httpx2.Client, on_postgres: Service
) -> None:
    assert on_postgres.peak_bytes() < 400 * MEBIBYTE
    assert caller.get("/v1/datasets").status_code == 200
    assert caller.get("/readyz").json()["ready"] is True
    assert not Path(arrays.CANARY).exists()
