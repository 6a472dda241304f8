#!/bin/sh
# Run a command with the login that MLflow's own client wants in its environment.
set -eu
if [ -r /run/secrets/minimart_mlflow_password ]; then
    export MLFLOW_TRACKING_USERNAME="${MINIMART_MLFLOW_USER:-minimart}"
    MLFLOW_TRACKING_PASSWORD=$(cat /run/secrets/minimart_mlflow_password)
    export MLFLOW_TRACKING_PASSWORD
fi
exec "$@"
