#!/usr/bin/env bash
# What Spark needs for a lake on an object store (s3a://), beside its own jars: Hadoop's S3A, those 34 jars of Amazon's
# SDK that it uses (11 MB; the bundle that it asks for has over 500), and the log store that commits there, compiled.
# After `make setup`; run again, it does nothing while its inputs are unchanged.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
cd "$ROOT"
VENV=$ROOT/.venv
CACHE=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/genodl-spark
SOURCE=genodl_spark/lake/ConditionalPutLogStore.java
. docker/env.sh
. docker/jars.sh

say() { printf 's3: %4ds  %s\n' "$SECONDS" "$*" >&2; }
fail() {
    printf 's3: error: %s\n' "$*" >&2
    exit 1
}

made=$SPARK_HOME/jars/genodl-s3.jar
stamp=$(cat docker/s3.sha256 docker/s3.sh docker/jars.sh docker/log_store.py "$SOURCE" | sha256sum)
jars_there "$SPARK_HOME/jars" "$ROOT/docker/s3.sha256" && [ -f "$made" ] \
    && [ "$(cat "$VENV/READY-S3" 2>/dev/null)" = "$stamp" ] && exit 0

jars=$CACHE/jars-s3
if ! jars_there "$jars" "$ROOT/docker/s3.sha256"; then
    say "resolving the jars of S3A"
    sdk=$(sed -n 's/.*  s3-\([0-9.]*\)\.jar$/\1/p' docker/s3.sha256)
    hadoop=$(sed -n 's/.*  hadoop-aws-\([0-9.]*\)\.jar$/\1/p' docker/s3.sha256)
    coordinates=org.apache.hadoop:hadoop-aws:$hadoop
    for name in s3 s3-transfer-manager apache-client netty-nio-client sts; do
        coordinates=$coordinates,software.amazon.awssdk:$name:$sdk
    done
    jars_resolved "$jars" "$ROOT/docker/s3.sha256" "$coordinates" software.amazon.awssdk:bundle \
        || fail "the jars could not be resolved as docker/s3.sha256 has them; is Maven Central within reach?"
fi
jars_beside_spark "$jars" docker/s3.sha256

say "compiling the log store"
"$VENV/bin/python" -W ignore docker/log_store.py "$SOURCE" "$made" || fail "$SOURCE did not compile"
say "archiving the classes that Spark starts with"
"$VENV/bin/python" -P docker/classes.py >/dev/null 2>&1 || say "they could not be archived: a query takes a few seconds longer"
rm -f "$VENV/READY-S3" # which may be a link that another installation shares
printf '%s' "$stamp" >"$VENV/READY-S3"
say "ready"
