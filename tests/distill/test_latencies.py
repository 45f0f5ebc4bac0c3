"""What a machine remembers of how long teachers take."""

import os
import time
from pathlib import Path

from distill.export.latencies import Latencies
from stillhouse.spec.report import Latency

TIMES = [Latency(batch=1, median_ms=2.5, p90_ms=3.0, runs=30, threads=1)]


def test_what_was_measured_is_recalled_and_marked_so(tmp_path: Path) -> None:
    known = Latencies(tmp_path / "made later")
    known.remember("a teacher", (3, 8, 8), TIMES)
    found = known.recall("a teacher", (3, 8, 8))
    assert found == [TIMES[0].model_copy(update={"remembered": True})]


def test_another_teacher_or_shape_is_not_known(tmp_path: Path) -> None:
    known = Latencies(tmp_path)
    known.remember("a teacher", (3, 8, 8), TIMES)
    assert known.recall("another", (3, 8, 8)) is None
    assert known.recall("a teacher", (3, 8, 9)) is None


def test_a_damaged_or_old_note_is_measured_again(tmp_path: Path) -> None:
    known = Latencies(tmp_path)
    known.remember("a teacher", (4,), TIMES)
    (note,) = tmp_path.iterdir()
    os.utime(note, (time.time() - 90_000, time.time() - 90_000))
    assert known.recall("a teacher", (4,)) is None
    note.write_text('[{"batch": 1')
    assert known.recall("a teacher", (4,)) is None


def test_without_a_folder_or_with_one_that_cannot_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    for folder in (None, tmp_path / "a file"):
        known = Latencies(folder)
        known.remember("a teacher", (4,), TIMES)
        assert known.recall("a teacher", (4,)) is None
