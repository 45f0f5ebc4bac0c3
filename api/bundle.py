"""All files of a job as one ZIP, made while it is sent: nothing is written to a disk."""

import hashlib
from collections.abc import Iterable, Iterator
from stat import S_IFREG

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from stream_zip import ZIP_AUTO, MemberFile, stream_zip

from api import conditional, files
from api.middleware import wants_no_body
from core.storage import Storage
from models.artifact import ArtifactRow

# Weights hardly shrink, and the sender shares its cores with everybody.
_LEVEL = 1
_MODE = S_IFREG | 0o644


def answer(request: Request, job_id: str, rows: list[ArtifactRow], storage: Storage) -> Response:
    """The ZIP. Its tag is weak: equal contents, not equal bytes."""
    contents = "".join(f"{row.sha256}  {row.name}\n" for row in rows)
    etag = "W/" + conditional.quoted(hashlib.sha256(contents.encode()).hexdigest())
    headers = {"ETag": etag, "Cache-Control": files.CACHE_CONTROL}
    if conditional.none_match(dict(request.scope["headers"]).get(b"if-none-match"), etag.removeprefix("W/").encode()):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = files.attachment(f"{job_id}.zip")
    if wants_no_body(request):
        return Response(media_type="application/zip", headers=headers)
    return StreamingResponse(_zipped(job_id, rows, storage), media_type="application/zip", headers=headers)


def _zipped(job_id: str, rows: list[ArtifactRow], storage: Storage) -> Iterable[bytes]:
    # The first file is opened before the answer begins: a storage that is away is an error, not half a ZIP.
    first = files.opened(storage, rows[0].storage_key, 0, rows[0].bytes)
    return stream_zip(_members(job_id, rows, first, storage))


def _members(job_id: str, rows: list[ArtifactRow], first: Iterator[bytes], storage: Storage) -> Iterator[MemberFile]:
    for position, row in enumerate(rows):
        chunks = first if position == 0 else storage.read(row.storage_key, end=row.bytes)
        yield f"{job_id}/{row.name}", row.created_at, _MODE, ZIP_AUTO(row.bytes, level=_LEVEL), chunks
