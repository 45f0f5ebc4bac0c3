"""A ZIP of an ONNX graph and the files its tensors lie in, made one file, which is then judged like any other graph.

Where tensors lie is said by `location`, `offset` and `length`: ONNX, docs/ExternalData.md.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

from onnx import TensorProto

from distill.teachers.onnx_checks import damage_refused, parsed, stored_bytes, tensors
from distill.teachers.package import content, extracted
from stillhouse.spec.archive import checked_archive, files
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, some, too_large

_PROTOBUF_BYTES = 2**31 - 1024
"""What one protobuf may have, less what the lengths around a tensor may grow by."""
_NUMBER = re.compile(r"[0-9]{1,18}")
_DRIVE = re.compile(r"[A-Za-z]:")
_PACK = "Pack the folder of the graph as ZIP, with every data file where the graph says."
_ANEW = "Export the graph anew, and pack the graph and its data file of the same export."


@dataclass(frozen=True)
class Place:
    """Where the bytes of one tensor lie."""

    name: str
    """Of a member, below the folder of the graph."""
    offset: int
    length: int


def merged(path: Path, folder: Path, limits: Limits) -> tuple[bytes, list[str]]:
    """The one graph of the archive at `path` with all of its tensors inside, as bytes, and notes. Its data files go
    to `folder`, under numbers; no name out of the graph is ever opened.

    Raises InvalidData and TooLarge, naming the tensor and its location, for everything `checked_archive` refuses, for
    several graphs, and for tensors that lie elsewhere or have other sizes than they say.
    """
    with checked_archive(path, limits) as archive:
        graph, beside = _graph(archive)
        _check_size(graph.file_size, limits)
        model = parsed(content(archive, graph))
        with damage_refused():
            outside = [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
            places = [_place(tensor, beside, PurePosixPath(graph.filename).name) for tensor in outside]
        _check_size(graph.file_size + sum(place.length for place in places), limits)
        used = sorted({place.name for place in places})
        data = {name: extracted(archive, beside[name], folder / f"{number}.data") for number, name in enumerate(used)}
    for tensor, place in zip(outside, places, strict=True):
        with data[place.name].open("rb") as file:
            _fill(tensor, place, file)
    unused = sorted(quoted(name) for name, member in beside.items() if name not in data and member is not graph)
    notes = [f"Files of the archive that are not used: {some(unused)}."] if unused else []
    return model.SerializeToString(), notes


def _graph(archive: ZipFile) -> tuple[ZipInfo, dict[str, ZipInfo]]:
    """The graph, and all members in its folder, by their names below it."""
    everything = [member for member in files(archive) if not member.filename.startswith("__MACOSX/")]
    graphs = [member for member in everything if member.filename.lower().endswith(".onnx")]
    if len(graphs) != 1:
        detail = f"The archive has {len(graphs)} ONNX graphs: {some(sorted(quoted(one.filename) for one in graphs))}."
        raise invalid("/file", "several_models", detail, "Pack one graph with its data files.")
    home = graphs[0].filename.removesuffix(PurePosixPath(graphs[0].filename).name)
    inside = (member for member in everything if member.filename.startswith(home))
    return graphs[0], {member.filename.removeprefix(home): member for member in inside}


def _check_size(size: int, limits: Limits) -> None:
    most = min(_PROTOBUF_BYTES, limits.max_expanded_bytes)
    if size > most:
        detail = f"The graph with all of its tensors would have {size:,} bytes, and one graph may have {most:,}."
        hint = "Save its weights as float16, or upload the network as a checkpoint or a torch.export program."
        raise too_large("/file", "too_many_bytes", detail, hint)


def _place(tensor: TensorProto, beside: dict[str, ZipInfo], graph: str) -> Place:
    says = {entry.key: entry.value for entry in tensor.external_data}
    name = _member(tensor.name, says.get("location", ""), beside, graph)
    size, needed = beside[name].file_size, stored_bytes(tensor)
    offset = _number(tensor.name, "offset", says.get("offset", "0"))
    # Without a length, the tensor is all that follows.
    length = _number(tensor.name, "length", says["length"]) if "length" in says else max(size - offset, 0)
    if offset + length > size:
        detail = f"The tensor {quoted(tensor.name)} is to be bytes {offset:,} to {offset + length:,} of {quoted(name)}"
        raise _lie(tensor.name, f"{detail}, which has {size:,}.")
    if needed != length:
        shape = "×".join(map(str, tensor.dims)) or "1"
        takes = "are of no type that can be read" if needed is None else f"take {needed:,}"
        detail = f"The tensor {quoted(tensor.name)} has {length:,} bytes in {quoted(name)}"
        raise _lie(tensor.name, f"{detail}, and its {shape} numbers {takes}.")
    return Place(name, offset, length)


def _member(tensor: str, location: str, beside: dict[str, ZipInfo], graph: str) -> str:
    """The name of the member at `location`."""
    at, lies = pointer("tensors", tensor), f"The tensor {quoted(tensor)} lies in {quoted(location)}"
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts or "\\" in location or _DRIVE.match(location):
        detail = f"{lies}, which is no place inside the folder of the graph."
        hint = "Save the graph with its data in one file beside it: onnx.save_model(…, save_as_external_data=True)."
        raise invalid(at, "external_data", detail, hint)
    if str(path) == graph:
        raise invalid(at, "external_data", f"{lies}, which is the graph itself.", _ANEW)
    if str(path) not in beside:
        raise invalid(at, "missing_member", f"{lies}, which the archive does not have beside the graph.", _PACK)
    return str(path)


def _number(tensor: str, key: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise _lie(tensor, f"The tensor {quoted(tensor)} has the {key} {quoted(value)}, which is no number of bytes.")
    return int(value)


def _lie(tensor: str, detail: str) -> Exception:
    return invalid(pointer("tensors", tensor), "corrupt_tensors", detail, _ANEW)


def _fill(tensor: TensorProto, place: Place, file: BinaryIO) -> None:
    file.seek(place.offset)
    tensor.raw_data = file.read(place.length)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
