"""Files from a real service over a network that cuts."""

import hashlib
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from stillhouse.client import Client
from stillhouse.client.download import download
from stillhouse.spec.errors import BadAnswer, NotFound, Unreachable
from stillhouse.spec.views import Artifact, Job
from tests.cutting import cutting_proxy
from tests.house import SPEC, House

MODEL = random.Random(0).randbytes(3_000_000)
SMALL = b'{"format": "stillhouse-model/1"}'
FILES = {"model.safetensors": MODEL, "config.json": SMALL, "empty.txt": b""}


@pytest.fixture(scope="module")
def job(house: House) -> Job:
    """A finished job with three files."""
    with house.client() as client:
        made = client.jobs.create(SPEC)
        house.succeed(house.take_up(made.id), FILES)
        return client.jobs.get(made)


def content(folder: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_arrive_whole_and_under_their_names(house: House, job: Job, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with house.client() as client:
        paths = client.jobs.download(job, tmp_path / "out", on_progress=lambda *now: told.append(now))
    assert content(tmp_path / "out") == FILES
    assert sorted(path.name for path in paths) == sorted(FILES)
    assert ("model.safetensors", len(MODEL), len(MODEL)) in told


def test_only_the_named_files_are_fetched(house: House, job: Job, tmp_path: Path) -> None:
    with house.client() as client:
        client.jobs.download(job, tmp_path, names=["config.json"])
        assert content(tmp_path) == {"config.json": SMALL}
        with pytest.raises(NotFound, match=r"model\.onnx") as caught:
            client.jobs.download(job, tmp_path, names=["model.onnx"])
    assert "model.safetensors" in str(caught.value.hint)


@pytest.mark.parametrize("cuts", [[1], [700, 1, 65_536], [1_000_000, 1_000_000], [0, 2_999_999]])
def test_a_download_cut_anywhere_goes_on_where_it_broke_off(
    house: House, job: Job, tmp_path: Path, cuts: list[int]
) -> None:
    needle = b"GET /v1/jobs/" + job.id.encode() + b"/artifacts/model"
    with cutting_proxy(house.url, needle, list(cuts)) as seen, house.client(url=seen.url) as client:
        client.jobs.download(job, tmp_path)
    assert content(tmp_path) == FILES
    assert len(seen.requests) == len(cuts) + 1
    asked = [head for head in seen.requests if b"\r\nRange: bytes=" in head]
    assert all(b'\r\nIf-Range: "' + hashlib.sha256(MODEL).hexdigest().encode() in head for head in asked)
    # What a cut answer had brought was not asked for again.
    assert len(asked) == len([cut for cut in cuts if cut])


def test_a_download_that_was_given_up_goes_on_later(house: House, job: Job, tmp_path: Path) -> None:
    with (
        cutting_proxy(house.url, b"/artifacts/model", [1_000_000]) as seen,
        house.client(url=seen.url, retries=0) as client,
        pytest.raises(Unreachable),
    ):
        client.jobs.download(job, tmp_path, names=["model.safetensors"])
    left = (tmp_path / "model.safetensors.part").stat().st_size
    assert 0 < left < len(MODEL)
    assert not (tmp_path / "model.safetensors").exists()
    with cutting_proxy(house.url, b"/artifacts/model", []) as seen, house.client(url=seen.url) as client:
        client.jobs.download(job, tmp_path, names=["model.safetensors"])
    assert content(tmp_path) == {"model.safetensors": MODEL}
    assert f"\r\nRange: bytes={left}-\r\n".encode() in seen.requests[0]


@pytest.mark.parametrize("left", [MODEL[:10] + b"not the model", b"y" * len(MODEL), b"y" * (len(MODEL) + 1)])
def test_a_part_of_something_else_is_thrown_away(house: House, job: Job, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(left)
    with house.client() as client:
        client.jobs.download(job, tmp_path, names=["model.safetensors"])
    assert content(tmp_path) == {"model.safetensors": MODEL}


def test_a_whole_file_is_not_fetched_again_and_another_one_is_not_overwritten(
    house: House, job: Job, tmp_path: Path
) -> None:
    with house.client() as client:
        client.jobs.download(job, tmp_path)
    with cutting_proxy(house.url, b"/artifacts/", []) as seen, house.client(url=seen.url) as client:
        client.jobs.download(job, tmp_path)
        assert seen.requests == []
        (tmp_path / "config.json").write_bytes(b"mine")
        with pytest.raises(FileExistsError, match=r"config\.json"):
            client.jobs.download(job, tmp_path)
        assert (tmp_path / "config.json").read_bytes() == b"mine"
        client.jobs.download(job, tmp_path, overwrite=True)
    assert content(tmp_path) == FILES


class Tampering(httpx2.BaseTransport):
    """The real network, with somebody on it who changes answers."""

    def __init__(self, change: Callable[[httpx2.Request, httpx2.Response], httpx2.Response]) -> None:
        self._network = httpx2.HTTPTransport()
        self._change = change
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        response = self._network.handle_request(request)
        response.read()
        return self._change(request, response)

    def close(self) -> None:
        self._network.close()


def answer(body: bytes, *, content_range: str | None = None) -> httpx2.Response:
    """An answer whose body has yet to be read."""
    headers = {} if content_range is None else {"Content-Range": content_range}
    return httpx2.Response(206 if content_range else 200, headers=headers, stream=httpx2.ByteStream(body))


def test_damaged_bytes_never_get_the_files_name(house: House, job: Job, tmp_path: Path) -> None:
    def flip_a_bit(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if "/artifacts/model" not in request.url.path:
            return response
        return answer(MODEL[:-1] + bytes([MODEL[-1] ^ 1]))

    network = Tampering(flip_a_bit)
    with house.client(http_transport=network) as client, pytest.raises(BadAnswer, match="sha256"):
        client.jobs.download(job, tmp_path, names=["model.safetensors"])
    assert content(tmp_path) == {}


@pytest.mark.parametrize("sent", [MODEL + b"more", MODEL[:-1], b""])
def test_a_file_of_another_size_is_refused(house: House, job: Job, tmp_path: Path, sent: bytes) -> None:
    def resize(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        return answer(sent) if "/artifacts/model" in request.url.path else response

    with house.client(http_transport=Tampering(resize)) as client, pytest.raises(BadAnswer, match="size"):
        client.jobs.download(job, tmp_path, names=["model.safetensors"])
    assert not (tmp_path / "model.safetensors").exists()


def test_an_answer_with_another_range_than_asked_for_is_refused(house: House, job: Job, tmp_path: Path) -> None:
    def shift(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if "range" not in request.headers:
            return response
        return answer(MODEL, content_range=f"bytes 0-{len(MODEL) - 1}/{len(MODEL)}")

    (tmp_path / "model.safetensors.part").write_bytes(MODEL[:10])
    with house.client(http_transport=Tampering(shift)) as client, pytest.raises(BadAnswer, match="another part"):
        client.jobs.download(job, tmp_path, names=["model.safetensors"])


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        "C:evil",
        "a:stream",
        ".bashrc",
        "x\0y",
        "x\ny",
        "model.part",
    ],
)
def test_no_name_the_service_gives_leads_out_of_the_folder(house: House, tmp_path: Path, name: str) -> None:
    good = Artifact(
        name="config.json",
        kind="config",
        bytes=len(SMALL),
        sha256=hashlib.sha256(SMALL).hexdigest(),
        media_type="application/json",
        url="",
        created_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
    )
    folder = tmp_path / "out"
    with house.client() as client, pytest.raises(BadAnswer, match="leave the folder"):
        download(
            client._transport,
            "/v1/jobs/x/artifacts",
            [good, good.model_copy(update={"name": name})],
            folder,
            names=None,
            overwrite=True,
            on_progress=None,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_partial_file_is_not_followed(house: House, job: Job, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    folder = tmp_path / "out"
    folder.mkdir()
    os.symlink(outside, folder / "config.json.part")
    with house.client() as client, pytest.raises(OSError, match="symbolic link"):
        client.jobs.download(job, folder, names=["config.json"])
    assert outside.read_bytes() == b"precious"


def test_the_bundle_holds_every_file(house: House, job: Job, tmp_path: Path) -> None:
    with house.client() as client:
        path = client.jobs.bundle(job, tmp_path / "student.zip")
        with pytest.raises(FileExistsError):
            client.jobs.bundle(job, path)
        client.jobs.bundle(job, path, overwrite=True)
    with zipfile.ZipFile(path) as archive:
        assert {Path(name).name: archive.read(name) for name in archive.namelist()} == FILES
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_bundle_is_fetched_anew_and_a_broken_one_leaves_nothing(house: House, job: Job, tmp_path: Path) -> None:
    with cutting_proxy(house.url, b"/bundle.zip", [100_000, 2_000_000]) as seen, house.client(url=seen.url) as client:
        client.jobs.bundle(job, tmp_path / "student.zip")
    assert len(seen.requests) == 3
    with zipfile.ZipFile(tmp_path / "student.zip") as archive:
        assert archive.testzip() is None

    def halve(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        whole = response.content
        return answer(whole[: len(whole) // 2]) if "bundle" in request.url.path else response

    with house.client(http_transport=Tampering(halve)) as client, pytest.raises(BadAnswer, match="ZIP"):
        client.jobs.bundle(job, tmp_path / "half.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["student.zip"]


@pytest.mark.parametrize("at", range(4))
def test_a_bundle_whose_compressed_bytes_are_damaged_is_told_as_such(
    house: House, job: Job, tmp_path: Path, at: int
) -> None:
    """A checksum is only looked at where there is something to unpack: a bent stream fails before."""

    def bend(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if "bundle" not in request.url.path:
            return response
        with zipfile.ZipFile(tmp_path / "sent.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", SMALL)
        whole = bytearray((tmp_path / "sent.zip").read_bytes())
        whole[30 + len("config.json") + at] ^= 0xFF  # the stream comes after a local header of 30 bytes and the name
        return answer(bytes(whole))

    with house.client(http_transport=Tampering(bend)) as client, pytest.raises(BadAnswer, match="ZIP arrived damaged"):
        client.jobs.bundle(job, tmp_path / "bent.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["sent.zip"]


def test_a_download_without_a_service_is_unreachable(house: House, job: Job, tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9", house.key, retries=0) as client, pytest.raises(Unreachable):
        client.jobs.download(job, tmp_path)
