"""A real server that speaks S3, on loopback. What it holds outlives a stop, as that of a store does."""

from typing import Any
from uuid import uuid4

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "only", "AWS_REGION": "us-east-1"}
"""Variables of the processes that use it."""


class ObjectStore:
    """A server that can be stopped and started again at the same address."""

    def __init__(self) -> None:
        self._server: Any = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve."""
        from moto.server import ThreadedMotoServer  # takes a second: only for tests that need it

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Be away."""
        self._server.stop()

    def new_bucket(self) -> dict[str, str]:
        """Settings of a storage in a bucket of its own."""
        import boto3

        name = f"bucket-{uuid4().hex}"
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "only", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=self.endpoint, **keys).create_bucket(Bucket=name)
        return {"storage_url": f"s3://{name}/prefix", "storage_endpoint": self.endpoint}
