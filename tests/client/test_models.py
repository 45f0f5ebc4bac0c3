"""Teachers are uploaded by the client, against the real service."""

import io
import os
import zipfile
from pathlib import Path

import httpx2
import pytest

from stillhouse.spec.errors import Invalid, InvalidData
from tests.client.test_download import Tampering
from tests.house import House
from tests.linear import linear


def test_a_graph_is_uploaded_described_and_listed(house: House, tmp_path: Path) -> None:
    path = tmp_path / "linear (1).onnx"
    path.write_bytes(linear())
    told: list[tuple[str, int, int]] = []
    with house.client() as client:
        made = client.models.upload(
            path,
            classes=["x", "y, or z", "w"],
            mean=[0.1, 0.2, 0.3, 0.4],
            std="2",
            on_progress=lambda *now: told.append(now),
        )
        assert (made.name, made.origin, made.format) == ("linear _1_.onnx", "upload", "onnx")
        assert made.classes == ["x", "y, or z", "w"]
        assert client.models.get(made.id) == made
        assert made in list(client.models.list())
    assert told[-1] == (path.name, path.stat().st_size, path.stat().st_size)


def test_options_that_cannot_be_right_are_refused_before_the_file_is_sent(house: House, tmp_path: Path) -> None:
    network = Tampering(lambda request, response: response)
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear())
    with house.client(http_transport=network) as client, pytest.raises(Invalid) as caught:
        client.models.upload(path, architecture="os.system", std=[0.5, 0])
    assert sorted(error.pointer for error in caught.value.errors) == ["?architecture", "?std"]
    assert network.requests == []


@pytest.mark.parametrize(
    ("files", "sent"),
    [
        (
            ["config.json", "model.safetensors", "model.onnx", "pytorch_model.bin", "README.md", ".cache.json"],
            ["config.json", "model.safetensors"],
        ),
        (
            ["model.onnx", "model.onnx.data", "onnx__MatMul_12", ".env"],
            ["model.onnx", "model.onnx.data", "onnx__MatMul_12"],
        ),
    ],
)
def test_a_folder_goes_as_one_archive_of_what_is_needed_and_always_the_same(
    files: list[str], sent: list[str], house: House, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    class Listening(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            bodies.append(b"".join(request.stream))  # type: ignore[arg-type]
            assert request.url.params["name"] == "model"
            problem = {"type": "", "title": "", "status": 422, "detail": "Heard.", "code": "invalid_data"}
            return httpx2.Response(422, json=problem)

    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    for name in (*files, "onnx/model.json"):
        (folder / name).write_bytes(b"{}")
    with house.client(http_transport=Listening()) as client:
        for moment in (1, 2_000_000_000):
            os.utime(folder / sent[0], (moment, moment))
            with pytest.raises(InvalidData, match="Heard"):
                client.models.upload(folder)
    assert bodies[0] == bodies[1]
    with zipfile.ZipFile(io.BytesIO(bodies[0])) as archive:
        assert archive.namelist() == sent


def test_a_file_that_is_not_there_is_the_callers_own_error(house: House, tmp_path: Path) -> None:
    with house.client() as client, pytest.raises(FileNotFoundError):
        client.models.upload(tmp_path / "nothing.onnx")
