#!/bin/sh
# Redis with an append-only file and the generated password: on disk within a second, nothing is evicted.
set -eu
password=$(cat /run/secrets/minimart_redis_password)
if [ "${1:-}" = healthy ]; then
    [ "$(REDISCLI_AUTH=$password redis-cli ping)" = PONG ]
    exit
fi
# The password stands in a file of this container and not on the command line.
umask 022
cat > /tmp/redis.conf <<END
requirepass $password
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory 512mb
maxmemory-policy noeviction
END
exec docker-entrypoint.sh redis-server /tmp/redis.conf
