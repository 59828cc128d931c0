#!/usr/bin/env bash
# Entrypoint of the images: Java, Spark and Python as docker/env.sh finds them, then the command.
#
# Where GENODL_SPARK_SECRET is set, ~/spark.conf is made for the --properties-file of master, workers and spark-submit:
# conf/spark/containers.conf and the secret, for this container's user alone.
set -euo pipefail

. /opt/genodl/docker/env.sh
PATH=$GENODL_VENV/bin:$PATH:$SPARK_HOME/bin
if [ -n "${GENODL_SPARK_SECRET:-}" ]; then
    address=$(hostname -i)
    export SPARK_LOCAL_HOSTNAME=${address%% *} # how executors find a driver whose name no other container knows
    (
        umask 077
        cat "$GENODL_ROOT/conf/spark/containers.conf"
        printf 'spark.authenticate.secret %s\n' "$GENODL_SPARK_SECRET"
    ) >"$HOME/spark.conf"
    chmod 600 "$HOME/spark.conf"
    unset GENODL_SPARK_SECRET
fi
exec "$@"
