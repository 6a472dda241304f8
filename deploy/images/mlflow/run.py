"""MLflow in a container: `run.py server | database | bucket`.

    database   brings the tables of runs and registry to this version of MLflow
    bucket     makes the S3 bucket for the artifacts
    server     serves both, with logins; refuses to start without a password

Passwords are read from files (secrets.py made them) and handed on in the environment, never on a command line.
"""

import os
import sys
import time
from pathlib import Path

SECRETS, VAULT = Path("/run/secrets"), Path("/run/vault")
STORE, BUCKET, PORT = "http://object-store:7070", "mlflow", "8086"
WAIT_S = 60.0


def main(verb="server"):
    {"server": server, "database": database, "bucket": bucket}[verb]()


def secret(path):
    return path.read_text().strip()


def postgres(name):
    return f"postgresql+psycopg://mlflow:{secret(VAULT / 'postgres_password')}@postgres:5432/{name}"


def s3():
    return {
        "MLFLOW_S3_ENDPOINT_URL": STORE, "AWS_ACCESS_KEY_ID": secret(VAULT / "s3_access_key"),
        "AWS_SECRET_ACCESS_KEY": secret(VAULT / "s3_secret_key"), "AWS_DEFAULT_REGION": "us-east-1",
    }


def database():
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(postgres("mlflow"))
    if utils._is_empty_database(engine):
        utils._initialize_tables(engine)
    else:
        utils._upgrade_db(engine)
    utils._verify_schema(engine)
    print(f"MLflow's tables are at {utils._get_schema_version(engine)}")


def bucket():
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    os.environ.update(s3())
    client, deadline = boto3.client("s3", endpoint_url=STORE), time.monotonic() + WAIT_S
    while True:
        try:
            names = [one["Name"] for one in client.list_buckets()["Buckets"]]
            break
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"the object store at {STORE} did not answer in {WAIT_S:.0f} s: {error}")
            time.sleep(0.5)
    if BUCKET not in names:
        client.create_bucket(Bucket=BUCKET)
    print(f"bucket {BUCKET}: {'there' if BUCKET in names else 'made'}")


def server():
    ini = Path("/tmp/auth.ini")
    template = Path("/app/deploy/auth.ini").read_text()
    ini.write_text(template.replace("set-by-run.py", postgres("mlflow_auth").replace("%", "%%")))
    ini.chmod(0o600)
    hosts = [f"{name}:*" for name in ("mlflow", "localhost", "127.0.0.1")] + ["mlflow", "localhost", "127.0.0.1"]
    os.environ.update(s3())
    os.environ.update({
        "MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_AUTH_ADMIN_USERNAME": "minimart",
        "MLFLOW_AUTH_ADMIN_PASSWORD": secret(SECRETS / "minimart_mlflow_password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret(VAULT / "mlflow_cookie_key"),
        "MLFLOW_BACKEND_STORE_URI": postgres("mlflow"), "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
    })
    os.execvp("mlflow", [
        "mlflow", "server", "--app-name", "basic-auth", "--host", "0.0.0.0", "--port", PORT, "--workers", "1",
        "--serve-artifacts",
    ])


if __name__ == "__main__":
    main(*sys.argv[1:])
