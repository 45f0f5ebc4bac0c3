"""The cache workers of one machine share."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from worker.folder import trim_cache


def test_the_files_used_longest_ago_go_while_others_come_and_go(tmp_path: Path) -> None:
    folder, over = tmp_path / "cache" / "models", threading.Event()
    folder.mkdir(parents=True)
    (folder / "kept").write_bytes(bytes(100))

    def come_and_go() -> None:
        while not over.is_set():
            (folder / "new.part").write_bytes(b"x")
            (folder / "new.part").rename(folder / "new")
            (folder / "new").unlink()

    with ThreadPoolExecutor() as pool:
        other = pool.submit(come_and_go)
        try:
            for _ in range(2000):
                trim_cache(tmp_path / "cache", 1000)
        finally:
            over.set()
        other.result()
    assert [path.name for path in folder.iterdir()] == ["kept"]
