"""Runs in processes of their own that are killed with SIGKILL; started by `test_sigkill.py`.

    python -m tests.distill.checkpoints.victims SPEC DATASET FOLDER SEED

Each victim dies at a call drawn at random among those that make something durable (fsync, rename, removal), before it
or, every other time, right after it; the next one goes on in the same folder, until one comes to its end. Prints how
many died.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - what every victim would import at its first optimizer

from distill import Checkpoints, FolderShelf, RunIO, run
from stillhouse.spec import JobSpec


def main() -> None:
    spec, dataset, folder = JobSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    deaths, draw = 0, random.Random(int(sys.argv[4]))
    while True:
        output = folder / f"out-{deaths}"
        output.mkdir()
        calls = draw.randrange(2, 45)
        if (victim := os.fork()) == 0:
            _die_in_call(calls, after=deaths % 2 == 1)
            _work(spec, dataset, folder, output)
            os._exit(0)
        _, status = os.waitpid(victim, 0)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        deaths += 1
    sys.stdout.write(str(deaths))


def _work(spec: JobSpec, dataset: Path, folder: Path, output: Path) -> None:
    io = RunIO(
        dataset=dataset,
        teacher=None,
        output=output,
        shelf=FolderShelf(folder),
        threads=1,
        checkpoints=Checkpoints(folder / "checkpoints", every_seconds=0.0, share=1e9),
    )
    run(spec, io, lambda event: None)


def _die_in_call(number: int, *, after: bool) -> None:
    left = number

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            value = call(*given, **named)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return called

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))


if __name__ == "__main__":
    main()
