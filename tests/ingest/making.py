"""Uploads, made in memory."""

import io
import json
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def csv(header: str, rows: Iterable[str]) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def jsonl(rows: Iterable[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def good_objects(n: int = 30) -> list[dict[str, Any]]:
    """What `good_rows` says, as objects."""
    cells = (row.split(",") for row in good_rows(n))
    return [{"a": float(a), "b": b, "label": label} for a, b, label in cells]


def good_rows(n: int = 30) -> list[str]:
    """Rows of `a,b,label` without a repetition: a number, a colour, one of two classes."""
    return [f"{i}.5,{'red' if i % 3 else 'blue'},{'no' if i % 2 else 'yes'}" for i in range(n)]


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def archive(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in members:
            out.writestr(name, data)
    return file.getvalue()


def image(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def pixels(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pets(n: int = 5, shape: tuple[int, ...] = (6, 5, 3), prefix: str = "") -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    """n different images of each of two classes, in folders."""
    return [
        (f"{prefix}{pet}/{i}.png", image(pixels(*shape, seed=100 * k + i + sum(map(ord, prefix)) * 1000)))
        for k, pet in enumerate(("cat", "dog"))
        for i in range(n)
    ]
