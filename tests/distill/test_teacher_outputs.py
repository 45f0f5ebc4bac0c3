"""The teacher's outputs: asked once, kept, found again, and the same bits as those of a teacher that works along."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from distill import FolderShelf
from distill.augment import view
from distill.data import Dataset, measure, read_dataset
from distill.reporter import Reporter
from distill.stages import Stage
from distill.students import build
from distill.taps import Outputs
from distill.teacher import Teacher
from distill.teacher_outputs import Kept, Voice, Wish, outputs_of
from distill.teacher_outputs.file import Maker, open_whole, partial_name
from distill.teacher_outputs.key import key_of
from distill.teacher_outputs.layout import IDS, VALUES, Layout
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import LogLine, OutputsMade, OutputsPlace, OutputsWanted
from stillhouse.spec.students import Architecture, Cnn, Mlp, Mobilenet, Resnet
from stillhouse.spec.training import Augmentation, RandAugment
from tests.distill.test_processes import ROOT
from tests.distill.test_train import STAGE

KEY = "0" * 64
AUGMENTED = Augmentation(crop_padding=1, horizontal_flip=True, colour_jitter=0.3, random_erasing=0.5)


@pytest.fixture
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


def net(data: Dataset, architecture: Architecture | None = None) -> nn.Module:
    torch.manual_seed(0)
    found = measure(data)
    made = build(architecture or Mlp(name="mlp", dropout=0.5), data.facts, found.mean, found.std)
    return made.requires_grad_(False).eval()


def teacher(module: nn.Module) -> Teacher:
    return Teacher(lambda: module, "a teacher", 1, 1, "fingerprint")


def layout(data: Dataset, *, views: int = 1, top_k: int | None = None) -> Layout:
    return Layout(views, len(data.rows["train"]), len(data.facts.classes), top_k)


def made(
    module: nn.Module, data: Dataset, *, shelf: Any = None, stage: Stage = STAGE, said: Any = None, **more: Any
) -> Kept:
    wish = Wish(teacher(module), stage, layout(data, **more), 4.0)
    return outputs_of(wish, data, lambda: "digest", shelf, Reporter(said or (lambda event: None)))


def everything(kept: Kept, view: int = 0) -> Tensor:
    return kept.of(torch.arange(kept.layout.rows), view).logits


# What is said.


def test_outputs_are_those_of_the_teacher_in_eval_mode_without_gradient(data: Dataset) -> None:
    module = net(data).requires_grad_(True).train()
    found = everything(made(module, data))
    assert not module.training
    assert not found.requires_grad
    assert found.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(found, module(data.inputs(data.rows["train"])))


def test_a_teacher_with_an_infinite_output_cannot_teach_and_leaves_nothing(tmp_path: Path, data: Dataset) -> None:
    module = net(data)
    nn.init.constant_(module.get_submodule("network.4").bias, torch.inf)  # type: ignore[arg-type]
    with pytest.raises(JobFailure) as failure:
        made(module, data, shelf=FolderShelf(tmp_path))
    assert failure.value.code == "outputs_not_finite"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "architecture",
    [
        Mlp(name="mlp", hidden=(33, 17)),
        Mlp(name="mlp", hidden=(256,)),
        Cnn(name="cnn", channels=(5, 9)),
        Resnet(name="resnet", depth=8, width=4),
        Mobilenet(name="mobilenet"),
    ],
    ids=["odd mlp", "wide mlp", "cnn", "resnet", "mobilenet"],
)
def test_a_row_is_answered_with_the_same_bits_whatever_rows_are_asked_with_it(
    data: Dataset, architecture: Architecture, threads: int
) -> None:
    torch.set_num_threads(threads)
    voice = Voice(net(data, architecture))
    x = data.inputs(data.rows["train"][:200])
    whole = voice.of(x).logits
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    for size in (1, 7, 32, 50, 128):
        parts = torch.cat([voice.of(x[some]).logits for some in torch.split(order, size)])
        assert torch.equal(parts, whole[order]), size


@pytest.mark.parametrize("augmentation", [AUGMENTED, Augmentation(rand_augment=RandAugment())], ids=["moves", "ops"])
def test_a_view_has_the_same_bits_whatever_batch_its_row_is_in(data: Dataset, augmentation: Augmentation) -> None:
    seen, rows = view(data, augmentation, 0, "student", 3), data.rows["train"][:100]
    whole, order = seen(torch.arange(100), rows), torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for size in (1, 9, 64):
        parts = torch.cat([seen(some, rows[some]) for some in torch.split(order, size)])
        assert torch.equal(parts, whole[order]), size


def test_top_k_names_the_largest_and_the_sum_of_the_others(data: Dataset) -> None:
    module = net(data)
    dense = everything(made(module, data)).double()
    few = made(module, data, top_k=3).of(torch.arange(1257), 0)
    assert few.ids is not None
    assert few.ids.dtype == torch.int64
    assert torch.equal(few.ids.sort().values, dense.topk(3).indices.sort().values)
    softened = (dense / 4).softmax(1)
    buckets = (few.logits.double() / 4).softmax(1)
    torch.testing.assert_close(buckets[:, :3], softened.gather(1, few.ids), rtol=1e-5, atol=1e-7)
    rest = 1 - softened.gather(1, few.ids).sum(1)
    torch.testing.assert_close(buckets[:, 3], rest, rtol=1e-4, atol=1e-6)


# Where it is kept.


@pytest.mark.parametrize("more", [{}, {"views": 3}, {"top_k": 2}, {"views": 2, "top_k": 9}], ids=str)
def test_what_is_kept_is_found_again_bit_for_bit_and_is_a_safetensors_file(
    tmp_path: Path, data: Dataset, more: dict[str, int]
) -> None:
    stage = replace(STAGE, augmentation=AUGMENTED, views=more.get("views")) if "views" in more else STAGE
    said: list[Any] = []
    first = made(net(data), data, shelf=FolderShelf(tmp_path), stage=stage, **more)
    again = made(net(data), data, shelf=FolderShelf(tmp_path), stage=stage, said=said.append, **more)
    alone = made(net(data), data, stage=stage, **more)
    for number in range(more.get("views", 1)):
        rows = torch.randperm(1257)[:100]
        a, b, c = (kept.of(rows, number) for kept in (first, again, alone))
        assert torch.equal(a.logits, b.logits)
        assert torch.equal(a.logits, c.logits)
        assert (a.ids is None) == ("top_k" not in more)
        assert a.ids is None or (b.ids is not None and torch.equal(a.ids, b.ids))
    assert "used again" in "".join(e.message for e in said if isinstance(e, LogLine))
    [path] = tmp_path.iterdir()
    found = load_file(path)
    assert found[VALUES].shape == (1257 * more.get("views", 1), more.get("top_k", 9) + 1)
    assert (IDS in found) == ("top_k" in more)
    assert sum(part.nbytes for part in found.values()) == layout(data, **more).nbytes


def test_views_differ_and_are_those_of_the_first_epochs(data: Dataset) -> None:
    stage = replace(STAGE, augmentation=AUGMENTED, views=2)
    module = net(data)
    kept = made(module, data, stage=stage, views=2)
    assert not torch.equal(everything(kept, 0), everything(kept, 1))
    for number in (0, 1):
        seen = view(data, AUGMENTED, STAGE.seed, "student", number)(torch.arange(1257), data.rows["train"])
        assert torch.equal(everything(kept, number), Voice(module).of(seen).logits)


def test_the_key_tells_apart_all_that_outputs_depend_on(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    x, plain = data.inputs(data.rows["train"][:1]), layout(data)
    stage = replace(STAGE, augmentation=AUGMENTED, views=1)
    keys = [
        key_of("data", "teacher", STAGE, plain, None, x),
        key_of("other data", "teacher", STAGE, plain, None, x),
        key_of("data", "another", STAGE, plain, None, x),
        key_of("data", "teacher", STAGE, layout(data, top_k=3), 4.0, x),
        key_of("data", "teacher", STAGE, layout(data, top_k=4), 4.0, x),
        key_of("data", "teacher", STAGE, layout(data, top_k=3), 2.0, x),
        key_of("data", "teacher", stage, plain, None, x),
        key_of("data", "teacher", replace(stage, seed=7), plain, None, x),
        key_of("data", "teacher", replace(stage, augmentation=Augmentation(crop_padding=1)), plain, None, x),
        key_of("data", "teacher", stage, layout(data, views=2), None, x),
    ]
    torch.set_num_threads(2)
    keys.append(key_of("data", "teacher", STAGE, plain, None, x))
    torch.set_num_threads(1)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    keys.append(key_of("data", "teacher", STAGE, plain, None, x))
    monkeypatch.undo()
    assert len(set(keys)) == len(keys) == 12
    # Without views, neither the seed nor the augmentation of another stage matters: jobs share.
    other = replace(STAGE, seed=7, stream="stage 1", epochs=9, batch_size=3)
    assert key_of("data", "teacher", other, plain, None, x) == keys[0]


@pytest.mark.parametrize("spoil", ["cut", "flipped", "short", "other key", "header", "empty"])
def test_a_damaged_file_counts_as_absent_and_is_made_again(tmp_path: Path, data: Dataset, spoil: str) -> None:
    good = everything(made(net(data), data, shelf=FolderShelf(tmp_path)))
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if spoil == "flipped":
        content[-5] ^= 1
    elif spoil == "short":
        content = content.replace(b"000000000001257", b"000000000001256")
    elif spoil == "other key":
        content = content.replace(path.stem.encode(), b"f" * 64)
    elif spoil == "header":
        content[0] ^= 255
    path.write_bytes({"cut": content[:-1], "empty": b""}.get(spoil, bytes(content)))
    assert open_whole(path, path.stem, layout(data)) is None
    said: list[Any] = []
    again = made(net(data), data, shelf=FolderShelf(tmp_path), said=said.append)
    assert "damaged or gone" in "".join(e.message for e in said if isinstance(e, LogLine))
    assert torch.equal(everything(again), good)
    assert open_whole(path, path.stem, layout(data)) is not None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def chunk(first: int, rows: int) -> dict[str, Tensor]:
    return {VALUES: torch.arange(first * 2, (first + rows) * 2, dtype=torch.float32).view(rows, 2)}


def test_a_maker_goes_on_after_the_rows_that_are_sound(tmp_path: Path) -> None:
    plan, path = Layout(2, 5, 2), tmp_path / "x"
    with Maker(path, KEY, plan) as maker:
        maker.add(chunk(0, 4))
        maker.add(chunk(4, 3))
    assert open_whole(path, KEY, plan) is None
    with Maker(path, KEY, plan) as maker:
        assert maker.done == 7
        maker.add(chunk(7, 3))
        maker.finish()
    assert open_whole(path, KEY, plan) is not None
    np.testing.assert_array_equal(load_file(path)[VALUES].ravel(), np.arange(20))


@pytest.mark.parametrize("spoil", ["data", "header", "key"])
def test_a_maker_begins_anew_where_what_was_left_is_unsound(tmp_path: Path, spoil: str) -> None:
    plan, path = Layout(1, 5, 2), tmp_path / "x"
    with Maker(path, KEY, plan) as maker:
        maker.add(chunk(0, 4))
    content = bytearray(partial_name(path).read_bytes())
    content[{"data": -9, "header": 20, "key": content.index(b"0000")}[spoil]] ^= 1
    partial_name(path).write_bytes(content)
    with Maker(path, KEY, plan) as maker:
        assert maker.done == 0


def test_two_makers_are_never_at_one_file(tmp_path: Path) -> None:
    plan, path = Layout(1, 5, 2), tmp_path / "x"
    with Maker(path, KEY, plan) as maker:
        maker.add(chunk(0, 4))
        with pytest.raises(BlockingIOError):
            Maker(path, KEY, plan)
        maker.add(chunk(4, 1))
        maker.finish()
    assert open_whole(path, KEY, plan) is not None


_MAKER = """
import os, signal, sys
from pathlib import Path
import torch
from distill import FolderShelf
from distill.data import read_dataset
from distill.teacher_outputs.file import Maker
from tests.distill.test_teacher_outputs import made, net

torch.set_num_threads(1)
data = read_dataset(Path(sys.argv[1]))
if len(sys.argv) > 3:
    real, calls = Maker.add, []
    def add(self, chunk):
        real(self, chunk)
        calls.append(1)
        if len(calls) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    Maker.add = add
made(net(data), data, shelf=FolderShelf(Path(sys.argv[2])), said=lambda e: print(getattr(e, "message", ""), flush=True))
"""


def _labelling(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _MAKER, *arguments]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_labelling_killed_midway_goes_on_where_it_stopped_and_gives_the_same_bits(
    data: Dataset, digits_file: Path, tmp_path: Path
) -> None:
    killed = _labelling(str(digits_file), str(tmp_path), "1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [left] = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    resumed = _labelling(str(digits_file), str(tmp_path))
    assert "Labelling goes on after 1,024 of 1,257 rows." in resumed.stdout, resumed.stderr
    [path] = tmp_path.iterdir()
    mapping = open_whole(path, path.stem, layout(data))
    assert mapping is not None
    # And they are those this process would have made.
    assert torch.equal(everything(Kept.mapped(mapping, layout(data))), everything(made(net(data), data)))


class Elsewhere:
    """A shelf whose place to make things cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, list[OutputsMade]()

    def ask(self, wanted: OutputsWanted) -> OutputsPlace:
        return OutputsPlace(path=str(self.path), ready=False)

    def made(self, what: OutputsMade) -> None:
        self.told.append(what)


def test_a_disk_that_refuses_loses_what_would_be_kept_and_nothing_else(tmp_path: Path, data: Dataset) -> None:
    shelf, said = Elsewhere(tmp_path / "no such folder" / "x"), list[Any]()
    kept = made(net(data), data, shelf=shelf, said=said.append)
    assert torch.equal(everything(kept), everything(made(net(data), data)))
    assert [told.kept for told in shelf.told] == [False]
    assert "the disk refused" in "".join(e.message for e in said if isinstance(e, LogLine))


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from distill.data import read_dataset
from tests.distill.test_teacher_outputs import Elsewhere, everything, made, net

torch.set_num_threads(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
data = read_dataset(Path(sys.argv[1]))
shelf = Elsewhere(Path(sys.argv[2]) / "x")
kept = made(net(data), data, shelf=shelf)
print(torch.equal(everything(kept), everything(made(net(data), data))), shelf.told[0].kept)
"""


def test_a_file_too_large_for_the_disk_is_given_up_before_the_teacher_has_run(
    digits_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _FULL_DISK, str(digits_file), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True, check=False)
    assert done.stdout == "True False\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_outputs_say_what_they_are(tmp_path: Path, data: Dataset) -> None:
    made(net(data), data, shelf=FolderShelf(tmp_path), top_k=2)
    [path] = tmp_path.iterdir()
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    notes = json.loads(header["__metadata__"]["stillhouse"])
    assert (notes["format"], notes["key"], int(notes["done"])) == ("stillhouse-teacher-outputs/1", path.stem, 1257)
    assert isinstance(Voice(net(data)).of(torch.zeros(1, 1, 8, 8)), Outputs)
