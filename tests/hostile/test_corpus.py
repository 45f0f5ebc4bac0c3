"""Every hostile input gets the answer it must get, and nothing of it stays."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from stillhouse.spec.errors import Problem
from tests.hostile import archives, arrays, images, tables
from tests.hostile.case import Case
from tests.hostile.server import MEBIBYTE, Service

# All in one process: they share the service, and the last test looks at what all of them left.
pytestmark = pytest.mark.xdist_group("hostile")

UPLOADS = [*archives.CASES, *images.CASES, *tables.CASES, *arrays.CASES]
_LEAKS = ("Traceback", "/tmp/", "site-packages", 'File "', "psycopg", "sqlalchemy")


@pytest.fixture(scope="module")
def caller(on_postgres: Service) -> Iterator[httpx2.Client]:
    with on_postgres.client() as client:
        yield client


def named(case: Case) -> str:
    return case.name


def test_the_corpus_has_no_two_cases_of_one_name() -> None:
    names = [case.name for case in UPLOADS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", UPLOADS, ids=named)
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


def check(answer: httpx2.Response, case: Case) -> None:
    """The status, and a problem that says where and how to mend it."""
    assert answer.status_code == case.status, answer.text
    assert answer.headers["x-request-id"]
    assert not [leak for leak in _LEAKS if leak in answer.text]
    if answer.status_code < 400:
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert (problem.status, problem.code) == (case.status, case.code), answer.text
    assert problem.detail.endswith((".", ")"))
    if "/file" in case.pointer:
        assert problem.hint, "the way out is named"
    if case.entry or case.pointer:
        found = [(e.code, e.pointer) for e in problem.errors]
        assert any(case.entry in ("", code) and at.startswith(case.pointer) for code, at in found), answer.text


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
