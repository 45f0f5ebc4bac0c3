"""What the package promises by name."""

import inspect
import subprocess
import sys

import stillhouse.client
from stillhouse.client import Client


def test_all_names_what_is_imported_for_others_and_nothing_else() -> None:
    public = {
        name
        for name, value in vars(stillhouse.client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(stillhouse.client.__all__)
    assert sorted(stillhouse.client.__all__) == stillhouse.client.__all__


def test_every_public_method_is_typed_and_described() -> None:
    with Client("http://house", "shk_x") as client:
        resources = [
            client,
            client.jobs,
            client.datasets,
            client.models,
            client.teacher_outputs,
            client.webhooks,
            client.keys,
            client.secrets,
            client.audit,
        ]
    for resource in resources:
        for name, method in inspect.getmembers(resource, inspect.ismethod):
            if name.startswith("_"):
                continue
            assert method.__doc__, name
            signature = inspect.signature(method)
            assert signature.return_annotation is not inspect.Signature.empty, name
            assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values()), name


def test_the_client_needs_neither_torch_nor_the_server() -> None:
    code = (
        "import sys, stillhouse.client, stillhouse.cli; "
        "bad = {'torch', 'numpy', 'sqlalchemy', 'celery', 'fastapi', 'core', 'models', 'api', 'worker', 'distill'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
