"""Teacher outputs the service keeps for later jobs."""

from collections.abc import Iterator
from urllib.parse import quote

from stillhouse.client.pages import each
from stillhouse.client.transport import Transport
from stillhouse.spec.views import KeptOutputs


class TeacherOutputs:
    """`client.teacher_outputs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int | None = None) -> Iterator[KeptOutputs]:
        """Kept outputs, newest first."""
        return each(self._transport, "/v1/teacher-outputs", KeptOutputs, limit=limit)

    def delete(self, output_id: str) -> None:
        """Delete kept outputs; a later job makes them again. Raises NotFound; Conflict while a running job reads
        them."""
        # Not repeatable: the second of two would find nothing.
        self._transport.request("DELETE", f"/v1/teacher-outputs/{quote(output_id, safe='')}", repeatable=False)
