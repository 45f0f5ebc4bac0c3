"""Every command but watch and doctor, against the real service."""

import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from models import keys
from stillhouse.cli.app import app
from stillhouse.spec.views import Job, JobError
from tests.api.test_teacher_outputs import keep
from tests.cli.terminal import Here, elsewhere, environment, on_a_terminal, start
from tests.cutting import cutting_proxy
from tests.house import SPEC, House
from tests.linear import linear

FILES = {"model.onnx": b"onnx" * 5000, "config.json": b"{}"}


def finished(house: House, files: dict[str, bytes] | None = None, **options: Any) -> str:
    """Id of a job that succeeded, the newest."""
    with house.client() as client:
        job = client.jobs.create(SPEC | options.pop("spec", {}))
    house.succeed(house.take_up(job.id), FILES if files is None else files, **options)
    return job.id


def test_submit_prints_the_id_and_the_next_commands(say: Here, spec_file: str) -> None:
    said = say("submit", spec_file)
    assert said.code == 0
    job_id = said.out.split()[0]
    assert re.fullmatch(r"job_[0-9a-z]{26}", job_id)
    for command in ("watch", "pull", "jobs cancel"):
        assert f"stillhouse {command} {job_id}" in said.out


def test_submit_reads_standard_input(say: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(SPEC).encode())))
    assert Job.model_validate(say("submit", "-", "--json").json()).status == "queued"


def test_submit_twice_with_a_key_makes_one_job(say: Here, spec_file: str) -> None:
    first = say("submit", spec_file, "--idempotency-key", "from-the-shell", "--json").json()
    assert say("submit", spec_file, "--idempotency-key", "from-the-shell", "--json").json()["id"] == first["id"]


def test_validate_only_shows_what_would_run_and_submits_nothing(say: Here, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(SPEC | {"name": "validated"}))
    said = say("submit", str(path), "--validate-only")
    assert said.code == 0
    assert "610 parameters" in said.out
    assert say("submit", str(path), "--validate-only", "--json").json()["estimate"]["student_parameters"] == 610
    assert say("jobs", "ls", "--name", "validated", "--json").json() == []


def test_a_wrong_spec_is_told_field_by_field_with_its_line(say: Here, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "teacher: {train: {architecture: {name: mlp}}}\n"
        "dataset: {builtin: digits}\n"
        "student:\n  name: mlp\n  hiden: [8]\n"
        "temperature: -1e-3\n"
    )
    said = say("submit", str(path))
    assert said.code == 2
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "Error: The job spec is wrong in 2 fields."
    assert lines[1] == f"  {path}:5 /student/hiden: There is no such field; did you mean hidden?"
    assert lines[2].startswith(f"  {path}:6 /temperature: ")


def test_what_only_the_service_can_judge_is_told_with_its_line_too(say: Here, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(SPEC)[:-1] + ',\n"training": {"epochs": 999999}}')
    said = say("submit", str(path))
    assert said.code == 2
    assert f"  {path}:2 /training/epochs: " in said.err


def test_ls_filters_and_counts(say: Here, house: House) -> None:
    with house.client() as client:
        made = [client.jobs.create(SPEC | {"name": "counted", "labels": {"n": str(n)}}).id for n in range(4)]
        client.jobs.cancel(made[0])
    rows = say("jobs", "ls", "--name", "counted", "-n", "3", "--json").json()
    assert [row["id"] for row in rows] == made[:0:-1]
    rows = say("jobs", "ls", "--name", "counted", "--status", "cancelled,failed", "--json").json()
    assert [row["id"] for row in rows] == [made[0]]
    assert [row["id"] for row in say("jobs", "ls", "--label", "n=2", "--name", "counted", "--json").json()] == [made[2]]
    table = say("jobs", "ls", "--name", "counted").out
    assert all(job_id in table for job_id in made)
    assert "\x1b" not in table
    for wrong in (("--status", "done"), ("--label", "n"), ("-n", "0")):
        assert say("jobs", "ls", *wrong).code == 2


def test_ids_stay_whole_on_a_narrow_terminal_and_lines_in_a_pipe(house: House) -> None:
    job_id = finished(
        house, spec={"name": "a job with a rather long name as people give them when they are in the mood"}
    )
    seen = on_a_terminal("jobs", "ls", "-n", "1", env=environment(house), columns=72).out
    assert job_id in seen
    piped = elsewhere("jobs", "ls", "-n", "1", env=environment(house, COLUMNS="40")).out
    assert len(piped.splitlines()) == 2


def test_show_has_the_measured_table(say: Here, house: House) -> None:
    job_id = finished(house, spec={"name": "shown"})
    said = say("jobs", "show", "last")
    assert said.code == 0
    for word in (job_id, "shown", "teacher", "distilled student", "93.00 %", "94.00 %", "2.4 kB", "latency, 64 rows"):
        assert word in said.out
    assert say("jobs", "show", job_id, "--json").json()["report"]["models"][1]["role"] == "student"


def test_show_has_a_box_with_the_error_when_the_job_failed(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
    error = JobError(code="loss_not_finite", detail="The loss became NaN at step 7.", hint="Lower the learning rate.")
    house.fail(house.take_up(job.id), error)
    said = say("jobs", "show", job.id)
    assert said.code == 0
    assert "failed: loss_not_finite" in said.out
    assert "hint: Lower the learning rate." in said.out


def test_names_from_elsewhere_cannot_steer_the_terminal(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
    lease = house.take_up(job.id)
    house.say(lease, "evil \x1b[2J\x1b]0;title\x07 [red]markup[/red]")
    error = JobError(code="engine_fault", detail="\x1b[31mred\x1b[0m [bold]x[/bold]", hint="\x9b1m")
    house.fail(lease, error)
    for said in (say("jobs", "log", job.id), say("jobs", "show", job.id)):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said.out)
    assert "[red]markup[/red]" in say("jobs", "log", job.id).out


def test_cancel_and_log(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
    assert "cancelled" in say("jobs", "cancel", job.id).out
    assert say("jobs", "cancel", "last", "--json").json()["status"] == "cancelled"
    assert "The job was accepted." in say("jobs", "log", job.id).out
    assert say("jobs", "log", job.id, "--json").json()["log"].count("\n") == 2
    assert say("jobs", "cancel", finished(house)).code == 1


def test_pull_leaves_the_files_in_a_folder_named_like_the_job(
    say: Here, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job_id = finished(house)
    said = say("pull", "last")
    assert said.code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / job_id).iterdir()} == FILES
    rows = say("pull", job_id, "-o", "other", "--json").json()
    assert {Path(row["path"]).name: row["bytes"] for row in rows} == {n: len(b) for n, b in FILES.items()}


def test_pull_as_a_zip(say: Here, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job_id = finished(house)
    assert say("pull", job_id, "--zip").code == 0
    with zipfile.ZipFile(tmp_path / f"{job_id}.zip") as archive:
        assert {Path(name).name for name in archive.namelist()} == set(FILES)
    again = say("pull", job_id, "--zip")
    assert again.code == 2
    assert "--force" in again.err
    assert say("pull", job_id, "--zip", "--force").code == 0


def test_pull_does_not_overwrite_other_files_unless_forced(say: Here, house: House, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    job_id = finished(house)
    said = say("pull", job_id, "-o", str(tmp_path))
    assert said.code == 2
    assert "config.json" in said.err
    assert "--force" in said.err
    assert say("pull", job_id, "-o", str(tmp_path), "--force").code == 0
    assert (tmp_path / "config.json").read_bytes() == b"{}"


def test_pull_of_a_job_without_files_says_why(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
    said = say("pull", job.id)
    assert said.code == 1
    assert "queued" in said.err
    assert "hint: " in said.err


def test_a_waiting_job_is_shown_with_its_place_and_what_it_waits_for(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC | {"resources": {"memory_gb": 900_000.0}})
    place = say("jobs", "show", job.id, "--json").json()["queue"]
    shown = " ".join(say("jobs", "show", job.id).out.split())
    assert f"queued #{place['position']} " in shown
    assert f"waits at position {place['position']}: {place['detail'].split('.')[0]}" in shown
    house.take_up(job.id)
    assert "waits" not in say("jobs", "show", job.id).out


def test_a_killed_pull_goes_on_in_the_next_process(house: House, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8000
    job_id = finished(house, {"model.onnx": content})
    folder = tmp_path / "out"
    part = folder / "model.onnx.part"
    with cutting_proxy(house.url, b"/artifacts/model", [-1_000_000]) as cuts:
        process = start("pull", job_id, "-o", str(folder), env=environment(house, STILLHOUSE_URL=cuts.url))
        while not (part.exists() and part.stat().st_size > 500_000):
            assert process.poll() is None
        process.kill()
        process.communicate()
        left = part.stat().st_size
        said = elsewhere("pull", job_id, "-o", str(folder), env=environment(house, STILLHOUSE_URL=cuts.url))
    assert said.code == 0, said.err
    assert hashlib.sha256((folder / "model.onnx").read_bytes()).digest() == hashlib.sha256(content).digest()
    assert f"Range: bytes={left}-".encode() in cuts.requests[1]


def test_pull_shows_bars_on_a_terminal_only(house: House, tmp_path: Path) -> None:
    job_id = finished(house, {"model.onnx": bytes(8_000_000)})
    env = environment(house)
    seen = on_a_terminal("pull", job_id, "-o", str(tmp_path / "a"), env=env).out
    assert "8.0/8.0 MB" in seen
    assert f"{tmp_path / 'a' / 'model.onnx'}  8.0 MB" in seen.replace("\r\n", "")
    said = elsewhere("pull", job_id, "-o", str(tmp_path / "b"), env=env)
    assert said.out == f"{tmp_path / 'b' / 'model.onnx'}  8.0 MB\n"
    assert said.err == ""


def test_datasets_are_added_listed_and_shown(say: Here, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    rows = [f"{i},{i * 7 % 13},{'yes' if i % 2 else 'no'}" for i in range(60)]
    path.write_text("\n".join(["a,b,answer", *rows, ",,yes"]) + "\n")
    refused = say("datasets", "add", str(path), "--label", "answer")
    assert refused.code == 2
    assert "61" in refused.err
    nameless = say("datasets", "add", str(path))
    assert "  --label: " in nameless.err
    said = say("datasets", "add", str(path), "--label", "answer", "--bad-rows", "drop", "--name", "answers")
    assert said.code == 0
    assert "60 of 61, 1 dropped" in said.out
    dataset_id = re.search(r"ds_[0-9a-z]{26}", said.out)
    assert dataset_id is not None
    assert dataset_id[0] in say("datasets", "ls").out
    assert say("datasets", "show", dataset_id[0], "--json").json()["report"]["rows_dropped"] == 1
    assert say("datasets", "add", str(tmp_path / "nothing.csv")).code == 2
    assert say("datasets", "add", str(path), "--test", "2").code == 2


def test_teachers_are_uploaded_and_shown(say: Here, tmp_path: Path) -> None:
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear())
    refused = say("models", "upload", str(path), "--match", "order")
    assert refused.code == 2
    assert "  --match: " in refused.err
    assert "  --std: " in say("models", "upload", str(path), "--std", "0").err
    names = ("--classes", "a", "--classes", "b, c", "--classes", "d")
    said = say("models", "upload", str(path), "--name", "mine", "--mean", "1,2,3,4", *names)
    assert said.code == 0
    for word in ("mine", "uploaded, onnx", "ONNX graph", "4 inputs", "3: a, b, c, d", "mean [1.0, 2.0, 3.0, 4.0]"):
        assert word in said.out, said.out
    model_id = re.search(r"mdl_[0-9a-z]{26}", said.out)
    assert model_id is not None
    assert model_id[0] in say("models", "ls").out
    shown = say("models", "show", model_id[0], "--json").json()
    assert (shown["classes"], shown["job_id"]) == (["a", "b, c", "d"], None)
    assert say("models", "upload", str(tmp_path / "nothing.onnx")).code == 2


def test_models_catalogues_and_version(say: Here, house: House) -> None:
    finished(house)
    model = say("models", "ls", "-n", "1", "--json").json()[0]
    assert model["id"] in say("models", "ls").out
    assert "teacher: {model: " + model["id"] in say("models", "show", model["id"]).out
    assert say("models", "show", "mdl_none").code == 1
    for command, name in (("students", "resnet"), ("losses", "kd")):
        assert name in say(command).out
        assert name in [entry["name"] for entry in say(command, "--json").json()["data"]]
    assert say("version", "--json").json()["url"] == house.url


COMMANDS = [
    ("submit", "SPEC"),
    ("submit", "SPEC", "--validate-only"),
    ("submit", "SPEC", "--watch"),
    ("watch", "last"),
    ("pull", "last", "-o", "OUT"),
    ("jobs", "ls"),
    ("jobs", "show", "last"),
    ("jobs", "log", "last"),
    ("datasets", "ls"),
    ("models", "ls"),
    ("students",),
    ("losses",),
    ("version",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words))
def test_with_json_nothing_but_json_is_on_stdout_and_nothing_on_stderr(
    say: Here, house: House, spec_file: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    finished(house)
    words = [{"SPEC": spec_file, "OUT": str(tmp_path / "out")}.get(word, word) for word in command]
    if "--watch" in words:
        # Submitting again under the key of a job that is over: watching it ends at once.
        key = f"watched in {tmp_path.name}".replace(" ", "-")
        over = say("submit", spec_file, "--idempotency-key", key, "--json").json()
        house.succeed(house.take_up(over["id"]), FILES)
        words += ["--idempotency-key", key]
    said = say(*words, "--json")
    assert said.code == 0
    assert said.json() is not None
    assert said.err == ""


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("jobs", "show", "job_123"), 2, "invalid"),
        (("jobs", "show", "job_" + "0" * 26), 1, "not_found"),
        (("--key", "shk_wrong", "jobs", "ls"), 1, "unauthorized"),
        (("--url", "http://127.0.0.1:9", "--key", "x", "version"), 5, "unreachable"),
        (("submit", "/nowhere.yaml"), 2, "invalid"),
        (("submit",), 2, "invalid"),
        (("nonsense",), 2, "invalid"),
        (("jobs",), 2, "invalid"),
        (("jobs", "ls", "-n", "many"), 2, "invalid"),
    ],
)
def test_with_json_an_error_is_a_problem_on_stderr(
    say: Here, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, problem: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    said = say(*words, "--json")
    assert (said.code, said.out) == (code, "")
    assert json.loads(said.err)["code"] == problem
    plain = say(*words)
    assert plain.code == code
    assert "Traceback" not in plain.err
    assert plain.err.startswith("Error: ") or words == ("jobs",)


def test_without_a_service_the_way_out_is_named(say: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLHOUSE_URL")
    said = say("jobs", "ls")
    assert said.code == 5
    assert "stillhouse up" in said.err


def test_last_without_a_job_is_told(say: Here, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with house.database.write() as session:
        other = keys.issue(session, keys.project_named(session, "empty").id, name="test")
    said = say("--key", other, "jobs", "show", "last")
    assert said.code == 1
    assert "There is no job yet." in said.err


def test_a_fault_of_the_command_itself_is_a_sentence(say: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("stillhouse.cli.catalogues.catalogue_table", broken)
    said = say("students")
    assert said.code == 1
    assert "RuntimeError: boom" in said.err
    assert "Traceback" not in said.err
    monkeypatch.setenv("STILLHOUSE_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        say("students")


def test_a_reader_that_goes_away_is_no_error_message(house: House) -> None:
    process = start("students", "--json", env=environment(house))
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 1


def test_every_command_explains_itself(say: Here) -> None:
    groups = ["", *(str(group.name) for group in app.registered_groups)]
    assert "jobs" in groups
    for group in groups:
        listed = say(*filter(None, [group]), "--help").out
        for name in re.findall(r"^│ ([a-z][a-z-]*) ", listed, re.MULTILINE):
            said = say(*filter(None, [group]), name, "--help")
            assert said.code == 0
            if name not in (*groups, "up"):
                assert "--json" in said.out, name
    assert "130 Ctrl-C" in " ".join(say("watch", "--help").out.split())


def test_messages_to_a_webhook_are_listed(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC | {"webhook": {"url": "https://example.com/hook"}})
        client.jobs.cancel(job)
    assert "job.cancelled" in say("webhooks", "ls", job.id).out
    (sent,) = say("webhooks", "ls", job.id, "--json").json()
    assert sent["endpoint"] == "https://example.com"


def test_the_secret_of_webhooks_is_printed_alone_and_can_be_rotated(say: Here) -> None:
    before = say("webhooks", "secret").out.strip()
    after = say("webhooks", "rotate-secret").out.strip()
    assert before.startswith("whsec_")
    assert after != before
    assert say("webhooks", "secret").out.strip() == after


def test_kept_teacher_outputs_are_listed_and_deleted(say: Here, house: House, tmp_path: Path) -> None:
    assert "No teacher outputs." in say("teacher-outputs", "ls").out
    with house.client() as client:
        job = client.jobs.create(SPEC)
    keep(house, job.id, job.dataset_id, tmp_path)
    listed = say("teacher-outputs", "ls").out
    assert "mlp 64-64-10" in listed
    assert "55.3 kB" in listed
    (found,) = say("teacher-outputs", "ls", "--json").json()
    assert say("teacher-outputs", "rm", found["id"], "--json").json() == {"deleted": found["id"]}
    assert say("teacher-outputs", "ls", "--json").json() == []
    assert say("teacher-outputs", "rm", found["id"]).code != 0


def test_what_is_deleted_can_be_restored(say: Here, house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        lease = house.take_up(job.id)
        refused = say("jobs", "rm", job.id)
        assert refused.code == 1
        assert f"/v1/jobs/{job.id}/cancel" in refused.err
        house.succeed(lease, {})
        model = client.jobs.get(job).student_model_id
    assert model is not None
    for group, id in (("jobs", job.id), ("models", model)):
        assert f"{group} restore" in say(group, "rm", id).out
        assert id in say(group, "ls", "--deleted").out
        assert id not in say(group, "ls").out
        assert say(group, "restore", id, "--json").json()["deleted_at"] is None
        assert id in say(group, "ls").out
    assert say("datasets", "restore", job.dataset_id).code == 0


def test_pause_resume_retry_and_clone(say: Here, house: House, tmp_path: Path) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
    assert "paused" in say("jobs", "pause", job.id).out
    assert say("jobs", "resume", job.id, "--json").json()["status"] == "queued"
    said = say("jobs", "finish", job.id)
    assert said.code == 1
    assert "no student to finish with yet" in said.err
    assert say("jobs", "checkpoints", job.id).out.strip() == "No checkpoints."
    say("jobs", "cancel", job.id)
    assert "queued" in say("jobs", "retry", job.id).out
    changes = tmp_path / "changes.yaml"
    changes.write_text("temperature: 2\nstudent: {hidden: [16]}\n")
    made = say("jobs", "clone", job.id, str(changes), "--json").json()
    assert (made["cloned_from"], made["spec"]["temperature"], made["spec"]["student"]["hidden"]) == (job.id, 2, [16])
    best = tmp_path / "best.safetensors"
    assert say("jobs", "checkpoints", job.id, "--best", str(best)).code == 1
    done = finished(house, {"model.safetensors": b"weights"})
    assert say("jobs", "checkpoints", done, "--best", str(best)).code == 0
    assert best.read_bytes() == b"weights"
