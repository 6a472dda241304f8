#!/bin/bash
# serve: the object store with the generated keys. healthy: whether it answers.
set -euo pipefail
case $1 in
    serve)
        ROOT_ACCESS_KEY=$(cat /run/vault/s3_access_key) ROOT_SECRET_KEY=$(cat /run/vault/s3_secret_key)
        export ROOT_ACCESS_KEY ROOT_SECRET_KEY
        # Metadata in files beside the objects and not in extended attributes: any file system and any copy keeps it.
        exec versitygw --port :7070 --health /health --quiet posix --sidecar /objects/meta /objects/data
        ;;
    healthy)
        exec 3<> /dev/tcp/127.0.0.1/7070
        printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
        read -r -t 2 _ status _ <&3
        [ "$status" = 200 ]
        ;;
esac
