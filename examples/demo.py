"""The whole way of one job, through the HTTP API: start the service, distil, download the student, check it again.

`make demo` runs it. Everything it makes lies in `.demo/`, new each time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

from ingest.run import run as ingest
from stillhouse.cli.session import Session
from stillhouse.cli.specfile import read_spec_file
from stillhouse.cli.watch import follow
from stillhouse.client import Client
from stillhouse.spec import SPLITS
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.upload import IngestRequest
from stillhouse.spec.views import Job

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".demo"
START_SECONDS, STOP_SECONDS = 120, 20


def main() -> int:
    """Run the demo; 0 when the downloaded student does what its report says."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    speak = Session()
    try:
        with service() as (url, key), Client(url, key) as client:
            print(f"The service answers at {url}. Submitting {(HERE / 'job.yaml').relative_to(HERE.parent)} …\n")
            job = client.jobs.create(read_spec_file(str(HERE / "job.yaml")).data)
            if code := follow(speak, client, job):
                return code
            job = client.jobs.get(job)
            client.jobs.download(job, FOLDER / "student")
            data_sha256 = client.datasets.get(job.dataset_id).sha256
    except StillhouseError as error:
        speak.fail(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if student_keeps_its_word(job, data_sha256) else 1


@contextmanager
def service() -> Iterator[tuple[str, str]]:
    """`stillhouse up` on a fresh data folder and a free port; yields its address and key, and stops it at the end."""
    # Nothing the user has configured is used, or overwritten.
    env = {name: value for name, value in os.environ.items() if not name.startswith("STILLHOUSE_")}
    env["XDG_CONFIG_HOME"] = str(FOLDER / "config")
    ready, log = FOLDER / "ready.json", FOLDER / "up.log"
    command = [sys.executable, "-m", "stillhouse", "up", "--data-dir", str(FOLDER / "data"), "--port", "0"]
    print("Starting the service (API, worker, reconciler, broker) …")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--json-ready", str(ready)],
            env=env,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for this script, which then stops the service
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StillhouseError(f"The service did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.1)
        found = json.loads(ready.read_text())
        yield found["url"], found["key"]
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def student_keeps_its_word(job: Job, data_sha256: str) -> bool:
    """Load the downloaded model.onnx in ONNX Runtime and count its mistakes on the test rows again."""
    assert job.report is not None
    student, check = job.report.of("student"), job.report.onnx
    assert student is not None
    assert check is not None
    images, labels = rows_of_the_test_split(data_sha256)
    session = onnxruntime.InferenceSession(FOLDER / "student" / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})
    mistakes = int((logits.argmax(axis=1) != labels).sum())
    # The report says on how many rows the ONNX file and the torch student gave the same class.
    agrees = (
        abs(mistakes - student.errors) <= round((1 - check.same_class) * check.rows) and len(labels) == student.rows
    )
    word = "as the report says" if agrees else f"the report says {student.errors}"
    print(f"\nmodel.onnx in ONNX Runtime: {mistakes} of {len(labels)} test rows wrong, {word}.")
    print(f"The student and its files: {FOLDER / 'student'}")
    return agrees


def rows_of_the_test_split(sha256: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the test split, made here anew from scikit-learn; the digest proves they are the same."""
    path = FOLDER / "digits.safetensors"
    ingest(IngestRequest(builtin="digits", output=str(path)))
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise SystemExit("The service was given other data than this script makes.")
    stored = load_file(path)
    chosen = stored["split"] == SPLITS.index("test")
    return stored["x"][chosen], stored["y"][chosen]


if __name__ == "__main__":
    sys.exit(main())
