"""MLflow's store under compose: a Postgres database and a bucket. Everything runs in the containers that are there.

The dump is one transaction's view, so it is consistent while MLflow writes. The logins (a database of their own) are
not part of it: they belong to the secrets of the platform that is restored into.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import httpx

from adapters.errors import Unavailable
from pipelines.backup import manifest as files
from pipelines.stack.compose import advice
from pipelines.stack.compose.engine import compose
from settings import ROOT, Settings

DATABASE: Final = "mlflow.dump"
NAME: Final = "mlflow"  # of the database, its owner and the bucket
TABLES: Final = ("experiments", "runs", "registered_models", "model_versions", "registered_model_aliases")
LIMIT_S: Final = 1800.0
READY_S: Final = 180.0

# Runs in MLflow's image, which has boto3 and the store's keys: the bucket as a tar on stdout, from stdin, or emptied.
BUCKET: Final = """
import sys, tarfile
sys.path.insert(0, '/app/deploy')
import boto3, run
keys = run.s3()
client = boto3.client('s3', endpoint_url=keys['MLFLOW_S3_ENDPOINT_URL'], aws_access_key_id=keys['AWS_ACCESS_KEY_ID'],
                      aws_secret_access_key=keys['AWS_SECRET_ACCESS_KEY'], region_name=keys['AWS_DEFAULT_REGION'])
def objects():
    for page in client.get_paginator('list_objects_v2').paginate(Bucket=run.BUCKET):
        yield from (one for one in page.get('Contents', []) if not one['Key'].endswith('/'))
if sys.argv[1] == 'get':
    with tarfile.open(fileobj=sys.stdout.buffer, mode='w|') as tar:
        for one in sorted(objects(), key=lambda one: one['Key']):
            answer = client.get_object(Bucket=run.BUCKET, Key=one['Key'])
            member = tarfile.TarInfo(one['Key'])
            member.size = answer['ContentLength']
            tar.addfile(member, answer['Body'])
elif sys.argv[1] == 'put':
    with tarfile.open(fileobj=sys.stdin.buffer, mode='r|') as tar:
        for member in tar:
            if member.isfile():
                client.put_object(Bucket=run.BUCKET, Key=member.name, Body=tar.extractfile(member).read())
else:
    for one in list(objects()):
        client.delete_object(Bucket=run.BUCKET, Key=one['Key'])
"""


class ComposeStore:
    """The stores of the composed platform that runs."""

    stack: files.Stack = "compose"
    database = DATABASE

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def url(self) -> str:
        """MLflow's address on this machine, with its login: do not print it."""
        password = _run("exec", "-T", "mlflow", "cat", "/run/secrets/minimart_mlflow_password").decode().strip()
        return f"http://minimart:{password}@127.0.0.1:{self.settings.port('mlflow')}"

    def save(self, target: Path) -> tuple[dict[str, str], dict[str, int]]:
        """Database first: whatever it names is in the bucket then. Gives artifacts' digests and rows by table."""
        with (target / DATABASE).open("wb") as out:
            _run("exec", "-T", "postgres", "pg_dump", "-U", NAME, "-Fc", NAME, out=out)
        with (target / files.ARTIFACTS).open("wb") as out:
            _bucket("get", out=out)
        counts = {table: int(_sql(f"SELECT count(*) FROM {table}", database=NAME)) for table in TABLES}  # noqa: S608
        return files.tar_digests(target / files.ARTIFACTS), counts

    def put_back(self, source: Path) -> str:
        """Restore beside the old database, then swap the names; MLflow is stopped. Other artifacts stay."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
        fresh, aside = f"mlflow_restoring_{stamp}", f"mlflow_before_{stamp}"
        _sql(f'CREATE DATABASE "{fresh}"')
        with (source / DATABASE).open("rb") as dump:
            _run("exec", "-T", "postgres", "pg_restore", "-U", NAME, "--exit-on-error", "-d", fresh, given=dump)
        with (source / files.ARTIFACTS).open("rb") as tar:
            _bucket("put", given=tar)
        _sql(f'ALTER DATABASE "{NAME}" RENAME TO "{aside}"')
        _sql(f'ALTER DATABASE "{fresh}" RENAME TO "{NAME}"')
        return f"what was there before is in the database {aside}"

    def destroy(self) -> None:
        """Drop every table and object of a stopped MLflow; a drill does this."""
        _sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public", database=NAME)
        _bucket("drop")

    def remains(self) -> int:
        """How many tables and objects there are."""
        tables = _sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'", database=NAME)
        return int(tables) + len(self.artifacts())

    def artifacts(self) -> dict[str, str]:
        """Digest of every object as it lies in the bucket now."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / files.ARTIFACTS
            with path.open("wb") as out:
                _bucket("get", out=out)
            return files.tar_digests(path)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """MLflow does not run within the block and answers again after it."""
        url = self.url()
        _run("stop", "mlflow")
        try:
            yield
        finally:
            _run("start", "mlflow")
            _await(url)


def _bucket(verb: str, *, given: IO[bytes] | None = None, out: IO[bytes] | None = None) -> None:
    _run("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "mlflow", "-c", BUCKET, verb, given=given, out=out)


def _sql(statement: str, *, database: str = "postgres") -> str:
    command = ("psql", "-U", NAME, "-v", "ON_ERROR_STOP=1", "-Atqc", statement, database)
    return _run("exec", "-T", "postgres", *command).decode().strip()


def _run(*arguments: str, given: IO[bytes] | None = None, out: IO[bytes] | None = None) -> bytes:
    """`docker compose ...`; stdout into `out`, else returned. Raises Unavailable with what Docker says."""
    try:
        done = subprocess.run(
            compose(*arguments), cwd=ROOT, stdin=given or subprocess.DEVNULL, stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unavailable(advice.NOT_INSTALLED) from None
    if done.returncode:
        raise Unavailable(advice.explain(done.stderr.decode(errors="replace")))
    return done.stdout or b""


def _await(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise Unavailable(f"MLflow does not answer after {READY_S:.0f} s; see make logs S=mlflow STACK=compose")
        time.sleep(0.5)
