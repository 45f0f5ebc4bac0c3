"""Hostile .npz, .npy and safetensors, as datasets."""

import io
import os
import pickle
from typing import Any

import numpy as np
from safetensors.numpy import save

from tests.hostile.case import Case, uploads
from tests.ingest.making import archive, npz, pixels
from tests.ingest.test_npz import member

N = 60
Y = np.arange(N) % 3
FLAT = np.arange(N * 4, dtype=np.float64).reshape(N, 4)
CANARY = "/tmp/stillhouse-hostile-was-unpickled"


class Bomb:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def with_x(shape: str, dtype: str = "<f4", data: bytes = b"", *, fortran: bool = False) -> bytes:
    y = member("(60,)", "|u1", bytes(Y.astype(np.uint8)))
    return archive([("x.npy", member(shape, dtype, data, fortran)), ("y.npy", y)])


def objects() -> bytes:
    return npz(x=np.array([Bomb()] * N, dtype=object), y=Y)


def raw_pickle_member() -> bytes:
    return archive([("x.npy", pickle.dumps(Bomb())), ("y.npy", member("(60,)", "|u1", bytes(60)))])


def structured() -> bytes:
    return npz(x=np.zeros(N, dtype=[("a", "<f4"), ("b", "<i4")]), y=Y)


def with_value(value: float) -> bytes:
    x = FLAT.copy()
    x[7, 1] = value
    return npz(x=x, y=Y)


def single() -> bytes:
    out = io.BytesIO()
    np.save(out, FLAT)
    return out.getvalue()


X = "/file/arrays/x"
_ROWS: list[Any] = [
    ("an array of objects", objects, "invalid_data/object_array", X),
    ("a pickle in place of an array", raw_pickle_member, "invalid_data/corrupt_member", X),
    ("a bare pickle", lambda: pickle.dumps(Bomb()), "unsupported_media/unsupported_format", "/file"),
    ("a bare pickle of the first protocol", lambda: pickle.dumps(Bomb(), 0), "invalid_data/one_column", "/file"),
    ("fields with names", structured, "invalid_data/unsupported_type", X),
    ("a negative axis", lambda: with_x("(60, -4)", data=bytes(960)), "invalid_data/corrupt_member", X),
    ("axes whose product wraps around", lambda: with_x("(4194305, 4194305, 211106198978564)", data=bytes(960)), "invalid_data/corrupt_member", X),
    ("2^60 rows of nothing", lambda: with_x("(1152921504606846976, 0)"), "too_large/too_many_rows", X),
    ("a terabyte of claimed numbers", lambda: with_x("(500000, 500000)", data=bytes(960)), "invalid_data/corrupt_member", X),
    ("more bytes than claimed", lambda: with_x("(60, 4)", data=bytes(961)), "invalid_data/corrupt_member", X),
    ("fewer bytes than claimed", lambda: with_x("(60, 4)", data=bytes(959)), "invalid_data/corrupt_member", X),
    ("a shape that is code", lambda: with_x("__import__('os').system('true')", data=bytes(960)), "invalid_data/corrupt_member", X),
    ("a type that is code", lambda: with_x("(60, 4)", "__import__('os')", bytes(960)), "invalid_data/corrupt_member", X),
    ("a shape of 9,000 brackets", lambda: with_x("(" * 9000, data=bytes(960)), "invalid_data/corrupt_member", X),
    ("a shape of 64 axes", lambda: with_x("(" + "1," * 64 + ")", data=bytes(4)), "invalid_data/bad_shape", X),
    ("column order", lambda: with_x("(60, 4)", "<f4", FLAT.astype("<f4").tobytes("F"), fortran=True), "", ""),
    ("texts without length", lambda: with_x("(60, 4)", "<U0"), "invalid_data/unsupported_type", X),
    ("complex numbers", lambda: npz(x=FLAT * 1j, y=Y), "invalid_data/unsupported_type", X),
    ("dates", lambda: npz(x=np.zeros((N, 2), "datetime64[s]"), y=Y), "invalid_data/unsupported_type", X),
    ("NaN in an array", lambda: with_value(np.nan), "invalid_data/not_finite", X),
    ("infinity in an array", lambda: with_value(np.inf), "invalid_data/not_finite", X),
    ("1e300 in an array", lambda: with_value(1e300), "invalid_data/not_finite", X),
    ("labels beyond 64 bits", lambda: npz(x=FLAT, y=np.full(N, 2**64 - 1, np.uint64)), "invalid_data/one_class", "/file"),
    ("negative labels", lambda: npz(x=FLAT, y=-Y - 5), "", ""),
    ("fractional labels", lambda: npz(x=FLAT, y=Y / 7), "invalid_data/fractional_labels", "/file"),
    ("more labels than rows", lambda: npz(x=FLAT, y=np.arange(N + 1) % 3), "invalid_data/length_mismatch", "/file"),
    ("no rows in arrays", lambda: npz(x=FLAT[:0], y=Y[:0]), "invalid_data/bad_shape", "/file"),
    ("no inputs", lambda: npz(x=FLAT[:, :0], y=Y), "invalid_data/bad_shape", X),
    ("pixels from -1 to 1", lambda: npz(x=pixels(N, 6, 5) / 127.5 - 1, y=Y), "invalid_data/pixel_range", X),
    ("images of 200 megapixels", lambda: with_x("(60, 20000, 10000)", "|u1", bytes(960)), "invalid_data/corrupt_member", X),
    ("arrays of unclear names", lambda: npz(arr_0=FLAT, arr_1=Y), "invalid_data/unclear_arrays", "/file"),
    ("an array outside its folder", lambda: archive([("../x.npy", b""), ("y.npy", b"")]), "invalid_data/unsafe_name", "/file"),
    ("zeros by the million", lambda: npz(x=np.zeros((1_000_000, 12)), y=np.zeros(1_000_000, np.int8)), "too_large/too_many_bytes", "/file"),
    ("one array alone", single, "unsupported_media/unsupported_format", "/file"),
    ("safetensors as a dataset", lambda: save({"x": FLAT, "y": Y}), "unsupported_media/unsupported_format", "/file"),
    ("half an .npz", lambda: npz(x=FLAT, y=Y)[:500], "invalid_data/corrupt_archive", "/file"),
]  # fmt: skip

CASES: list[Case] = uploads("/v1/datasets", _ROWS)
