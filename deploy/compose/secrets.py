"""The passwords of the composed platform: `secrets.py make`, or `secrets.py show [name]`.

Made once, on the first start, and kept in two volumes: /run/secrets holds what our services need, /run/vault what only
the stores and MLflow need. One that is given in the environment is taken instead; one that differs from what the
stores were made with is refused. Standard library only; prints no value unless asked to show one.
"""

import os
import secrets
import sys
from pathlib import Path

SERVICES, VAULT = Path("/run/secrets"), Path("/run/vault")
# name -> (file, the variable by which you may give your own)
KNOWN = {
    "redis": (SERVICES / "minimart_redis_password", "MINIMART_REDIS_PASSWORD"),
    "mlflow": (SERVICES / "minimart_mlflow_password", "MINIMART_MLFLOW_PASSWORD"),
    "clickhouse": (SERVICES / "minimart_clickhouse_password", "MINIMART_CLICKHOUSE_PASSWORD"),
    "grafana": (SERVICES / "grafana_password", "GRAFANA_PASSWORD"),
    "postgres": (VAULT / "postgres_password", "POSTGRES_PASSWORD"),
    "s3-access": (VAULT / "s3_access_key", "S3_ACCESS_KEY"),
    "s3-secret": (VAULT / "s3_secret_key", "S3_SECRET_KEY"),
    "mlflow-cookie": (VAULT / "mlflow_cookie_key", "MLFLOW_COOKIE_KEY"),
}
FIXED = ("mlflow", "grafana", "postgres")  # the store remembers it: another one here would only lock us out
WEAK = ("password", "password1234", "admin", "changeme", "minimart")


def main(verb="make", *names):
    return make() if verb == "make" else show(names or tuple(KNOWN))


def make():
    made = []
    for name, (file, variable) in KNOWN.items():
        given, held = os.environ.get(variable, ""), file.read_text() if file.exists() else ""
        if given in WEAK and os.environ.get("MINIMART_ENVIRONMENT") == "production":
            return f"{variable} is a default that everybody knows; production needs one of your own"
        if held and given and given != held and name in FIXED:
            return (
                f"{variable} is not the one that {name} was set up with: change it there first, or take the line out "
                "of .env, or drop all data with `docker compose down -v`"
            )
        if not held or (given and given != held):
            write(file, given or secrets.token_urlsafe(24))
            made.append(name)
    print(f"secrets: {'made ' + ', '.join(made) if made else 'all there'}")
    return 0


def write(file, value):
    part = file.with_suffix(".part")
    part.write_text(value)
    part.chmod(0o444)  # each container that mounts the volume runs as a user of its own
    part.replace(file)


def show(names):
    for name in names:
        if name not in KNOWN:
            return f"no secret named {name}; there are {', '.join(KNOWN)}"
        print(KNOWN[name][0].read_text() if len(names) == 1 else f"{name:14} {KNOWN[name][0].read_text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
