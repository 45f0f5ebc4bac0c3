"""Hostile paths, queries and headers, and bytes that are no proper request."""

from tests.hostile.case import Case, Raw
from tests.hostile.specs import JSON, spec

NOBODY = "job_" + "0" * 26


def get(name: str, path: str, status: int, code: str = "", pointer: str = "", **headers: str) -> Case:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Case(name=name, method="GET", path=path, headers=named, status=status, code=code, pointer=pointer)


def other(name: str, method: str, path: str, status: int, code: str) -> Case:
    return Case(name=name, method=method, path=path, status=status, code=code)


def query(name: str, text: str, pointer: str, path: str = "/v1/jobs") -> Case:
    return get(name, f"{path}?{text}", 422, "invalid", pointer)


def keyed(name: str, key: str) -> Case:
    return Case(
        name=name,
        body=spec,
        path="/v1/jobs",
        headers=JSON | {"Idempotency-Key": key},
        status=422,
        code="invalid",
        pointer="header:Idempotency-Key",
    )


CASES: list[Case] = [
    get("a NUL in a path", "/v1/jobs/%00", 404, "not_found"),
    get("a NUL in the id of a dataset", "/v1/datasets/ds_%00", 404, "not_found"),
    get("a NUL in the id of a model", "/v1/models/mdl_%00", 404, "not_found"),
    get("a NUL in the id of a key", "/v1/keys/key_%00", 404, "not_found"),
    get("a NUL in the name of a file", f"/v1/jobs/{NOBODY}/artifacts/%00", 404, "not_found"),
    get("an escape in a path", "/v1/jobs/%1b%5b2J", 404, "not_found"),
    get("invalid UTF-8 in a path", "/v1/jobs/%ff%fe", 404, "not_found"),
    get("half a percent sign", "/v1/jobs/%", 404, "not_found"),
    get("a percent sign of a percent sign", "/v1/jobs/%252e%252e%252f", 404, "not_found"),
    get("dots in a path", "/v1/jobs/%2e%2e/%2e%2e/etc/passwd", 404, "not_found"),
    get("slashes in an id", "/v1/datasets/..%2f..%2fetc%2fpasswd", 404, "not_found"),
    get("a backslash in an id", "/v1/datasets/..%5c..%5cx", 404, "not_found"),
    get("an id of 8,000 characters", "/v1/datasets/" + "a" * 8000, 404, "not_found"),
    get("an id in capitals", "/v1/jobs/" + NOBODY.upper(), 404, "not_found"),
    get("SQL in an id", "/v1/datasets/x'%20OR%20'1'='1", 404, "not_found"),
    get("doubled slashes", "//v1//jobs", 404, "not_found"),
    get("a slash at the end", "/v1/jobs/", 404, "not_found"),
    get("another version", "/v2/jobs", 404, "not_found"),
    get("the environment of the process", "/.env", 404, "not_found"),
    other("a deletion of a NUL", "DELETE", "/v1/datasets/%00", 404, "not_found"),
    other("a deletion of 500 characters", "DELETE", "/v1/datasets/" + "a" * 500, 404, "not_found"),
    other("a restored NUL", "POST", "/v1/models/%00/restore", 404, "not_found"),
    other("a cancelled NUL", "POST", "/v1/jobs/%00/cancel", 404, "not_found"),
    other("a revoked NUL", "DELETE", "/v1/keys/%00", 404, "not_found"),
    other("a rotated NUL", "POST", "/v1/keys/%00/rotate", 404, "not_found"),
    other("deleted outputs of a NUL", "DELETE", "/v1/teacher-outputs/%00", 404, "not_found"),
    other("a method nobody knows", "BREW", "/v1/jobs", 400, "bad_request"),
    other("TRACE", "TRACE", "/v1/jobs", 405, "method_not_allowed"),
    other("PUT on a list", "PUT", "/v1/jobs", 405, "method_not_allowed"),
    other("OPTIONS", "OPTIONS", "/v1/jobs", 405, "method_not_allowed"),
    query("a page of nothing", "limit=0", "?limit"),
    query("a page of -1", "limit=-1", "?limit"),
    query("a page of 2^64", "limit=18446744073709551616", "?limit"),
    query("a page of 5,000 digits", "limit=" + "9" * 5000, "?limit"),
    query("a page of 1e2", "limit=1e2", "?limit"),
    query("a page of NaN", "limit=NaN", "?limit"),
    query("a made-up cursor", "after=AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "?after"),
    query("a cursor that is no base64", "after=%F0%9F%92%A9", "?after"),
    query("a cursor with a NUL", "after=%00", "?after"),
    query("a cursor of 10,000 characters", "after=" + "A" * 10_000, "?after"),
    query("an empty cursor", "after=", "?after"),
    query("a status of SQL", "status=queued'--", "?status"),
    query("a status of a NUL", "status=%00", "?status"),
    query("a label without a value", "label=x", "?label"),
    query("a label with a NUL", "label=a:%00", "?label"),
    query("100 labels", "&".join(f"label=a:{i}" for i in range(100)), "?label"),
    query("a name with a NUL", "name=%00", "?name"),
    query("a parameter that is not there", "sort=-created_at", "?sort"),
    query("a parameter with brackets", "limit[$gt]=1", "?limit[$gt]"),
    query("5,000 parameters", "&".join(f"p{i}=1" for i in range(5000)), "?p"),
    query("true for deleted, twice", "deleted=maybe", "?deleted"),
    get("a dataset for students with a NUL", "/v1/students?dataset=%00", 404, "not_found"),
    query("a shape of nothing", "shape=", "?shape", "/v1/students"),
    query("a shape of 10^30", "shape=" + "9" * 30, "?shape", "/v1/students"),
    get("a NUL in a filter of the log", "/v1/audit?target=%00", 422, "invalid", "?target"),
    query("minus points", "max_points=-1", "?max_points", f"/v1/jobs/{NOBODY}/metrics"),
    get("a language of 30,000 characters", "/v1/jobs", 200, Accept_Language="x" * 30_000),
    get("an entity tag that is none", "/v1/jobs/" + NOBODY, 404, "not_found", If_None_Match='W/"' * 1000),
    get("a date in the year 99,999", "/v1/jobs/" + NOBODY, 404, "not_found", If_Modified_Since="Fri, 01 Jan 99999"),
    get("a range of nonsense", f"/v1/jobs/{NOBODY}/artifacts/x", 404, "not_found", Range="bytes=-0,-1-,9-1"),
    get("a stream that goes on from a NUL", f"/v1/jobs/{NOBODY}/events", 404, "not_found", Last_Event_ID="-1"),
    get("a wrong key", "/v1/jobs", 401, "unauthorized", Authorization="Bearer shk_" + "A" * 40),
    get("a key of 30,000 characters", "/v1/jobs", 401, "unauthorized", Authorization="Bearer " + "A" * 30_000),
    get("another scheme", "/v1/jobs", 401, "unauthorized", Authorization="Basic YTpi"),
    get("a host of somebody else", "/v1/jobs", 200, Host="evil.example"),
    keyed("an idempotency key of 256 characters", "x" * 256),
    keyed("an idempotency key with a space", "a b"),
    keyed("an idempotency key with markup of a log", "a\tb"),
    Case(name="an upload of a form", body=lambda: b"--x\r\n\r\n--x--", path="/v1/datasets?name=t", headers={"Content-Type": "multipart/form-data; boundary=x"}, status=415, code="unsupported_media"),
    Case(name="an upload of gzip", body=lambda: b"\x1f\x8b", path="/v1/datasets?name=t", headers={"Content-Encoding": "br"}, status=415, code="unsupported_media"),
    Case(name="a digest that is none", body=lambda: b"a", path="/v1/datasets?name=t", headers={"Repr-Digest": "sha-256=:" + "A" * 5000}, status=422, code="invalid", pointer="header:Repr-Digest"),
    Case(name="a digest of something else", body=lambda: b"a", path="/v1/datasets?name=t", headers={"Content-Digest": f"sha-256=:{'A' * 43}=:"}, status=422, code="invalid_data", entry="digest_mismatch"),
    Case(name="a name with a NUL for data", body=lambda: b"a", path="/v1/datasets?name=%00", status=422, code="invalid", pointer="?name"),
    Case(name="a share of NaN", body=lambda: b"a", path="/v1/datasets?name=t&test=NaN", status=422, code="invalid", pointer="?test"),
    Case(name="a column with a NUL", body=lambda: b"a,label\n1,x\n", path="/v1/datasets?name=t&label=%00", status=422, code="invalid_data", pointer="?label"),
    Case(name="an image side of 10^9", body=lambda: b"a", path="/v1/datasets?name=t&image_size=1000000000", status=422, code="invalid", pointer="?image_size"),
    Case(name="a teacher with remote code", body=lambda: b"a", path="/v1/models?name=t&trust_remote_code=true", status=422, code="invalid", pointer="?trust_remote_code"),
    Case(name="a teacher of a dotted path", body=lambda: b"a", path="/v1/models?name=t&architecture=os.system", status=422, code="invalid", pointer="?architecture"),
]  # fmt: skip


def _head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode("latin-1")


def _posted(key: str, *headers: str) -> bytes:
    return _head("POST /v1/jobs HTTP/1.1", f"Authorization: Bearer {key}", "Content-Type: application/json", *headers)


_OK = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_BAD = "bad_request"

RAW: list[Raw] = [
    Raw(name="nonsense", sent=lambda key: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 20, statuses=(400,), code=_BAD),
    Raw(name="a length of minus one", sent=lambda key: _posted(key, "Content-Length: -1"), statuses=(400,), code=_BAD),
    Raw(name="two lengths", sent=lambda key: _posted(key, "Content-Length: 2", "Content-Length: 3") + b"{}", statuses=(400,), code=_BAD),
    Raw(name="a length that is text", sent=lambda key: _posted(key, "Content-Length: 0x2") + b"{}", statuses=(400,), code=_BAD),
    Raw(name="a length of 10^30", sent=lambda key: _posted(key, "Content-Length: 1" + "0" * 30), statuses=(400,), code=_BAD),
    Raw(name="a length and chunks", sent=lambda key: _posted(key, "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + _OK, statuses=(400,), code=_BAD),
    Raw(name="chunks, said with a tab", sent=lambda key: _posted(key, "Content-Length: 2", "Transfer-Encoding:\tchunked") + b"{}", statuses=(400,), code=_BAD),
    Raw(name="chunks of an unknown kind", sent=lambda key: _posted(key, "Transfer-Encoding: xchunked") + b"0\r\n\r\n", statuses=(400,), code=_BAD),
    Raw(name="a space before the colon", sent=lambda key: _posted(key, "Transfer-Encoding : chunked") + b"0\r\n\r\n", statuses=(400,), code=_BAD),
    Raw(name="a header over two lines", sent=lambda key: _posted(key, "X-A: b", " Content-Length: 4") + b"{}", statuses=(400,), code=_BAD),
    Raw(name="a NUL in a header", sent=lambda key: _posted(key, "X-A: b\0c"), statuses=(400,), code=_BAD),
    Raw(name="a chunk whose size is text", sent=lambda key: _posted(key, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n", statuses=(400,), code=_BAD),
    Raw(name="a chunk of 2^64 bytes", sent=lambda key: _posted(key, "Transfer-Encoding: chunked") + b"10000000000000000\r\n{}", statuses=(400,), code=_BAD),
    Raw(name="HTTP/9.9", sent=lambda key: b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", statuses=(400,), code=_BAD),
    Raw(name="HTTP/2 without being asked", sent=lambda key: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", statuses=(400,), code=_BAD),
    Raw(name="a proxy's request", sent=lambda key: b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n", statuses=(400,), code=_BAD),
    Raw(name="a request behind an upgrade", sent=lambda key: _head("GET /healthz HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13") + _OK, statuses=(200,)),
    Raw(name="two requests in a row", sent=lambda key: _head("GET /healthz HTTP/1.1") + _OK, statuses=(200, 200)),
    Raw(name="an absolute address", sent=lambda key: b"GET http://evil.example/v1/jobs HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", statuses=(401,), code="unauthorized"),
]  # fmt: skip
