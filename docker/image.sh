#!/usr/bin/env bash
# image.sh cpu|gpu FOLDER: what an image holds of a checkout that is set up, in three folders, each a layer of its own:
# packages/, which changes with the lock, jars/, Spark's, and project/. The Dockerfile runs it, in a place like the one
# that the layers will stand in.
set -euo pipefail

kind=$1 folder=$2
ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
cd "$ROOT"
site=lib/python3.11/site-packages

.venv/bin/python docker/environment.py "$kind" --venv "$folder/packages/.venv"

mkdir -p "$folder/jars/.venv/$site/pyspark"
cp -al ".venv/$site/pyspark/jars" "$folder/jars/.venv/$site/pyspark/"

# Modification times stay: Python would compile a module again whose bytecode is not of its source's time, and the JVM
# pass over an archive of its classes.
mkdir -p "$folder/project/.venv/bin" "$folder/project/.venv/$site" "$folder/project/docker"
cp -a genodl_spark jobs conf "$folder/project/"
cp -a docker/env.sh docker/entrypoint.sh docker/healthy.sh docker/bucket.py docker/sql.sh "$folder/project/docker/"
cp -a .venv/bin/python* .venv/bin/genodl .venv/bin/spark-submit "$folder/project/.venv/bin/"
cp -a .venv/pyvenv.cfg .venv/jre "$folder/project/.venv/"
printf '%s\n' "$ROOT" >"$folder/project/.venv/$site/genodl.pth"
.venv/bin/python -m compileall -q -s "$folder/project" -p "$ROOT" "$folder/project/genodl_spark" "$folder/project/jobs"
chmod -R a+rX,go-w "$folder"
