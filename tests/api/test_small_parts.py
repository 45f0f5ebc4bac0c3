"""Parts of the API that stand alone: cursors, ranges, tags, digests, thinning, JSON, the secret, readiness."""

import asyncio
import json
import math
import os
import stat
from base64 import urlsafe_b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from api import bodies, conditional, digests, files, ranges
from api.answers import CACHED_JOBS, Answer, Answers
from api.cursors import LIFETIME_SECONDS, Cursors
from api.recent import Recent
from api.services.downsampling import lttb
from core.secret import secret_key
from core.settings import Settings
from stillhouse.spec.errors import Gone, Invalid

KEY = b"k" * 32


@given(st.text(min_size=1, max_size=40))
def test_a_cursor_gives_back_its_position(position: str) -> None:
    cursors = Cursors(KEY)
    assert cursors.read("prj", "jobs", cursors.issue("prj", "jobs", position)) == position


def test_a_cursor_with_any_character_changed_is_refused() -> None:
    cursors = Cursors(KEY)
    cursor = cursors.issue("prj", "jobs", "job_1")
    for place, character in enumerate(cursor):
        forged = cursor[:place] + ("A" if character != "A" else "B") + cursor[place + 1 :]
        if cursors_bits(forged) == cursors_bits(cursor):
            continue  # base64 leaves some bits of the last character unused
        with pytest.raises(Invalid):
            cursors.read("prj", "jobs", forged)


def cursors_bits(cursor: str) -> bytes:
    return urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


def test_a_cursor_is_bound_to_project_list_and_key() -> None:
    cursor = Cursors(KEY).issue("prj", "jobs", "job_1")
    for key, project, name in ((KEY, "prj2", "jobs"), (KEY, "prj", "models"), (b"l" * 32, "prj", "jobs")):
        with pytest.raises(Invalid):
            Cursors(key).read(project, name, cursor)


def test_a_cursor_lasts_a_day() -> None:
    now = [1000.0]
    cursors = Cursors(KEY, clock=lambda: now[0])
    cursor = cursors.issue("prj", "jobs", "job_1")
    now[0] += LIFETIME_SECONDS
    assert cursors.read("prj", "jobs", cursor) == "job_1"
    now[0] += 1
    with pytest.raises(Gone):
        cursors.read("prj", "jobs", cursor)


@pytest.mark.parametrize("cursor", ["", "=", "a", "ä", "\0", "A" * 22, "....", "AAAA"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid):
        Cursors(KEY).read("prj", "jobs", cursor)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_a_range_is_always_within_the_file(first: int, last: int, size: int) -> None:
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            part = ranges.wanted(header, size)
        except ranges.BadRange:
            continue
        assert part is not None
        assert 0 <= part.start < part.end <= size
        expected = bytes(range(200))[:size]
        start = size - last if header.startswith("bytes=-") else first
        assert expected[part.start : part.end][:1] == expected[max(0, start) :][:1]


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), (b"", False), (b'"a"', True), (b'W/"a"', True), (b'"b", "a"', True), (b"*", True), (b'"b"', False)],
)
def test_if_none_match_is_compared_weakly(header: bytes | None, expected: bool) -> None:
    assert conditional.none_match(header, b'"a"') is expected


def test_names_of_downloads_cannot_break_out_of_their_header() -> None:
    assert files.attachment("model.onnx") == 'attachment; filename="model.onnx"'
    assert files.attachment('a"b') == "attachment; filename*=UTF-8''a%22b"
    assert files.attachment("größe\r\n") == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe%0D%0A"


def test_only_sha256_is_read_from_a_digest_header() -> None:
    zeros = "A" * 43 + "="
    assert digests.expected_sha256(Headers({})) is None
    assert digests.expected_sha256(Headers({"repr-digest": "md5=:AAAA:"})) is None
    assert digests.expected_sha256(Headers({"repr-digest": f"sha-512=:x:, SHA-256=:{zeros}:"})) == bytes(32)
    assert digests.expected_sha256(Headers({"content-digest": f"sha-256=:{zeros}:"})) == bytes(32)


POINTS = st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=300).map(lambda v: list(enumerate(v)))


@given(POINTS, st.integers(2, 50))
def test_thinned_points_are_some_of_the_points_in_order_with_both_ends(
    points: list[tuple[int, float]], wanted: int
) -> None:
    kept = lttb(points, wanted)
    assert len(kept) == min(len(points), wanted)
    assert [p for p in points if p in set(kept)] == kept
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_thinning_keeps_a_lone_spike() -> None:
    points = [(step, 100.0 if step == 617 else math.sin(step / 50)) for step in range(1000)]
    assert (617, 100.0) in lttb(points, 20)


ATOMS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text()
JSON = st.recursive(ATOMS, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(), x, max_size=4), max_leaves=20)


@given(JSON)
def test_plain_json_is_parsed_as_everywhere(value: object) -> None:
    assert bodies.parse(json.dumps(value).encode()) == value
    assert bodies.parse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


def test_a_body_of_open_strings_is_judged_in_one_pass() -> None:
    for raw in (b'"' * 300_000, b'\\"' * 300_000, b'["' * 300_000):
        with pytest.raises(Invalid):
            bodies.parse(raw)


def test_the_secret_is_made_once_whoever_asks_and_kept_from_others(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: secret_key(settings), range(16)))
    assert len(made) == 1
    path = tmp_path / "new" / "secret.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "new") == ["secret.key"]
    assert len(made.pop()) >= 48


def test_a_given_secret_is_used_and_a_short_one_refused(tmp_path: Path) -> None:
    given_key = Settings(data_dir=tmp_path, secret_key="s" * 32)  # type: ignore[arg-type]
    assert secret_key(given_key) == b"s" * 32
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="STILLHOUSE_SECRET_KEY has 5 characters"):
        secret_key(Settings(data_dir=tmp_path, secret_key="short"))  # type: ignore[arg-type]


def test_kept_answers_are_bounded_and_those_asked_for_stay() -> None:
    answers = Answers()
    for number in range(CACHED_JOBS + 10):
        answers.keep(f"job_{number}", Answer(1, b"", b"", [], []))
        assert answers.get("job_0", 1) is not None
    assert answers.get("job_1", 1) is None
    assert answers.get(f"job_{CACHED_JOBS + 9}", 1) is not None
    assert answers.get("job_0", 2) is None


def test_a_finding_is_made_once_for_all_who_wait() -> None:
    made = []

    def find() -> int:
        made.append(1)
        return len(made)

    async def ask() -> list[int]:
        fresh, stale = Recent[int](seconds=60), Recent[int](seconds=-1)
        together = await asyncio.gather(*(fresh.get(find) for _ in range(10)))
        return [*set(together), await stale.get(find), await stale.get(find)]

    assert asyncio.run(ask()) == [1, 2, 3]
