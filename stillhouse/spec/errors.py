"""Every error a caller can meet, as one tree. The server renders it, the client raises it again.

StillhouseError
├── BadRequest                  400  no HTTP the service reads
├── Unauthorized                401  the key is missing, unknown or revoked
├── Forbidden                   403  the key may not do this
├── NotFound                    404  no such thing here, or it belongs to somebody else
├── MethodNotAllowed            405
├── Conflict                    409  the state of the thing does not allow it
│   ├── JobFinished             409  the job is over
│   └── NotReady                409  the job has no artifacts yet
├── Gone                        410  an expired cursor
├── LengthRequired              411
├── TooLarge                    413  more bytes than the limit
├── UnsupportedMedia            415  a body or file of a type we do not read
├── RangeNotSatisfiable         416
├── Invalid                     422  fields are wrong; `errors` names each
│   ├── InvalidSpec             422  the job spec
│   ├── InvalidData             422  the uploaded dataset or teacher
│   └── IdempotencyMismatch     422  same key, another body
├── RateLimited                 429  too many requests or uploads; Retry-After says when
├── QuotaExceeded               429  the project may not have more of this; waiting alone does not help
├── QueueFull                   429  as many jobs of the project wait as may; Retry-After says when to look again
├── Unavailable                 503  the database, broker or storage does not answer
├── ServerFault                 500  our mistake; the request id finds it in the log
├── Unreachable                 –    raised by the client alone: no answer came
└── BadAnswer                   –    raised by the client alone: an answer came that cannot be right

JobFailure (not an HTTP error: the way a running job ends)
"""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from stillhouse.spec.base import View


class FieldError(View):
    """One wrong field."""

    pointer: str
    """JSON pointer into the body (`/student/hidden/0`), or `?name` for a query parameter."""
    code: str
    """Stable, lower_snake."""
    detail: str
    """What is wrong and what would be right."""


class Problem(View):
    """RFC 9457 problem details, as `application/problem+json`."""

    type: str
    """`urn:stillhouse:error:` followed by the code: the errors page of the docs lists them all."""
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    """The fix, in one sentence."""
    errors: list[FieldError] = Field(default_factory=list)
    request_id: str | None = None


class StillhouseError(Exception):
    """Base of the tree. `str(error)` is the sentence a person reads."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        errors: Iterable[FieldError] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.request_id = request_id

    def __str__(self) -> str:
        lines = [self.detail, *(f"  {e.pointer}: {e.detail}" for e in self.errors)]
        return "\n".join(lines + ([f"  hint: {self.hint}"] if self.hint else []))

    def problem(self) -> Problem:
        """The same error as problem details."""
        return Problem(
            type=f"urn:stillhouse:error:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            hint=self.hint,
            errors=list(self.errors),
            request_id=self.request_id,
        )

    @classmethod
    def at(cls, pointer: str, code: str, detail: str, *, hint: str | None = None) -> "StillhouseError":
        """An error about one field: the sentence and the field's own entry are the same."""
        return cls(detail, hint=hint, errors=[FieldError(pointer=pointer, code=code, detail=detail)])


class BadRequest(StillhouseError):
    code, status, title = "bad_request", 400, "This is no HTTP the service reads"


class Unauthorized(StillhouseError):
    code, status, title = "unauthorized", 401, "A valid API key is needed"


class Forbidden(StillhouseError):
    code, status, title = "forbidden", 403, "The key may not do this"


class NotFound(StillhouseError):
    code, status, title = "not_found", 404, "No such thing"


class MethodNotAllowed(StillhouseError):
    code, status, title = "method_not_allowed", 405, "The path does not take this method"


class Conflict(StillhouseError):
    code, status, title = "conflict", 409, "The state does not allow it"


class JobFinished(Conflict):
    code, title = "job_finished", "The job is over"


class NotReady(Conflict):
    code, title = "not_ready", "Not there yet"


class Gone(StillhouseError):
    code, status, title = "gone", 410, "No longer there"


class LengthRequired(StillhouseError):
    code, status, title = "length_required", 411, "The body's length must be known"


class TooLarge(StillhouseError):
    code, status, title = "too_large", 413, "More than the limit"


class UnsupportedMedia(StillhouseError):
    code, status, title = "unsupported_media", 415, "This type is not read"


class RangeNotSatisfiable(StillhouseError):
    code, status, title = "range_not_satisfiable", 416, "The range lies outside the file"


class Invalid(StillhouseError):
    code, status, title = "invalid", 422, "Some fields are wrong"


class InvalidSpec(Invalid):
    code, title = "invalid_spec", "The job spec is wrong"


class InvalidData(Invalid):
    code, title = "invalid_data", "The upload cannot be used"


class IdempotencyMismatch(Invalid):
    code, title = "idempotency_mismatch", "The idempotency key was used with another body"


class RateLimited(StillhouseError):
    code, status, title = "rate_limited", 429, "Too many in too short a time"
    retry_after_seconds: int | None = None
    """When there is room again."""


class QuotaExceeded(StillhouseError):
    code, status, title = "quota_exceeded", 429, "The project has all it may have of this"


class QueueFull(StillhouseError):
    code, status, title = "queue_full", 429, "As many jobs wait as may"
    retry_after_seconds: int | None = None
    """When a place may be free, by the pace of the last hour."""


class Unavailable(StillhouseError):
    code, status, title = "unavailable", 503, "A part of the service does not answer"


class ServerFault(StillhouseError):
    code, status, title = "server_fault", 500, "A fault on our side"


class Unreachable(StillhouseError):
    code, status, title = "unreachable", 0, "The service could not be reached"


class BadAnswer(StillhouseError):
    code, status, title = "bad_answer", 0, "The answer cannot be right"


def _tree(root: type[StillhouseError]) -> Iterable[type[StillhouseError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def error_classes() -> dict[str, type[StillhouseError]]:
    """All classes by code."""
    return {cls.code: cls for cls in _tree(StillhouseError)}


def from_problem(problem: Problem) -> StillhouseError:
    """Rebuild the error a server rendered; an unknown code becomes the base class of its status."""
    by_status = {cls.status: cls for cls in reversed(list(_tree(StillhouseError)))}
    cls = error_classes().get(problem.code) or by_status.get(problem.status, StillhouseError)
    return cls(problem.detail, hint=problem.hint, errors=problem.errors, request_id=problem.request_id)


class JobFailure(Exception):
    """A running job cannot go on. `code` is one of `FAILURE_CODES`; `retry` says another attempt may succeed."""

    def __init__(self, code: str, detail: str, *, hint: str, retry: bool = False) -> None:
        if code not in FAILURE_CODES:
            raise ValueError(f"unknown failure code {code!r}")
        super().__init__(detail)
        self.code, self.detail, self.hint, self.retry = code, detail, hint, retry


FAILURE_CODES: dict[str, str] = {
    "loss_not_finite": "The loss became NaN or infinite.",
    "outputs_not_finite": "A model gave NaN or infinite outputs.",
    "out_of_memory": "The trainer needed more memory than the worker has.",
    "export_mismatch": "The exported ONNX file does not give what the torch student gives.",
    "export_failed": "The student could not be exported.",
    "device_unavailable": "The spec asks for a device this worker does not have.",
    "teacher_unusable": "The teacher could not be loaded or does not fit the dataset.",
    "teacher_too_weak": "The student alone is better than the teacher: there is nothing to learn from it.",
    "layer_unknown": "A loss names a layer that a network does not have.",
    "layer_mismatch": "A loss cannot compare the layers it is given, or finds none.",
    "student_unusable": "The student's network cannot take images of this size.",
    "secret_unavailable": "A secret the spec names was deleted, or can no longer be opened.",
    "weights_unavailable": "Published weights a spec asks for could not be downloaded.",
    "budget_unmet": "No candidate is as fast as the student's budget asks.",
    "dataset_unusable": "The stored dataset could not be read.",
    "storage_quota": "The project stores as much as it may: there is no room for what a job leaves.",
    "time_limit": "The job ran longer than `resources.max_hours`.",
    "attempts_exhausted": "Every allowed attempt was lost with its trainer or worker.",
    "engine_fault": "The engine failed in a way it should not.",
}
