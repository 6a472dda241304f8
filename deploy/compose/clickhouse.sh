#!/bin/sh
# ClickHouse with the generated password for its one user.
set -eu
CLICKHOUSE_PASSWORD=$(cat /run/secrets/minimart_clickhouse_password)
export CLICKHOUSE_PASSWORD
# The image's own start; one that is laid out otherwise has its server here.
if [ -x /entrypoint.sh ]; then exec /entrypoint.sh; else exec python3 -u /server.py; fi
