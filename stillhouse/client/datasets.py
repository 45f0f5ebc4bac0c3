"""Datasets: upload and look up."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from stillhouse.client.download import OnProgress
from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.client.upload import check_options, name_of, upload
from stillhouse.spec.upload import IngestOptions, UploadFormat
from stillhouse.spec.views import Dataset


class Datasets:
    """`client.datasets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        format: UploadFormat | None = None,
        label: str | None = None,
        split_column: str | None = None,
        ignore: Iterable[str] = (),
        validation: float | None = None,
        test: float | None = None,
        seed: int | None = None,
        bad_rows: Literal["reject", "drop"] | None = None,
        unlabelled: Literal["reject", "keep"] | None = None,
        image_size: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Dataset:
        """Upload CSV, JSON lines, Parquet, .npz or ZIP of class folders; it is checked and stored when this returns.

        The options are those of `stillhouse.spec.upload.IngestOptions`; what is None is left to the service.
        `name`: the file's name when None. The file is streamed and arrives whole or is refused (Repr-Digest).
        Not sent again when the answer is lost: it might be stored twice.
        Raises OSError when the file cannot be read; Invalid, InvalidData, TooLarge, UnsupportedMedia.
        """
        path = Path(path)
        options = {
            "label": label,
            "split_column": split_column,
            "ignore": tuple(ignore) or None,
            "validation": validation,
            "test": test,
            "seed": seed,
            "bad_rows": bad_rows,
            "unlabelled": unlabelled,
            "image_size": image_size,
        }
        given = {key: value for key, value in options.items() if value is not None}
        check_options(IngestOptions, given)
        params = {"name": name or name_of(path), "format": format, **given}
        response = upload(
            self._transport, "/v1/datasets", path, params=params, shown=path.name, on_progress=on_progress
        )
        return parse(Dataset, response)

    def get(self, dataset_id: str) -> Dataset:
        """One dataset, with its facts and data report. Raises NotFound."""
        return parse(Dataset, self._transport.get(f"/v1/datasets/{quote(dataset_id, safe='')}"))

    def list(self, *, deleted: bool = False, limit: int | None = None) -> Iterator[Dataset]:
        """Datasets, newest first. `deleted`: those in the trash, instead of all others."""
        return each(
            self._transport, "/v1/datasets", Dataset, params={"deleted": "true" if deleted else None}, limit=limit
        )

    def delete(self, dataset_id: str) -> Dataset:
        """Put a dataset into the trash; until its `purge_at` it can be restored. Raises NotFound;
        Conflict while a job needs it."""
        return parse(
            Dataset, self._transport.request("DELETE", f"/v1/datasets/{quote(dataset_id, safe='')}", repeatable=True)
        )

    def restore(self, dataset_id: str) -> Dataset:
        """Take it out of the trash. Raises NotFound, also when it has been removed for good."""
        response = self._transport.request(
            "POST", f"/v1/datasets/{quote(dataset_id, safe='')}/restore", repeatable=True
        )
        return parse(Dataset, response)
