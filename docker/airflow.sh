#!/usr/bin/env bash
# An Airflow for the tests of the DAGs, into .venv-airflow, apart from .venv: neither takes the other's versions.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."
stamp=$(sha256sum <docker/airflow.lock)
[ "$(cat .venv-airflow/READY 2>/dev/null)" = "$stamp" ] && exit 0
rm -rf .venv-airflow
"$(command -v python3.11 || command -v python3)" -m venv --without-pip .venv-airflow
.venv/bin/uv pip install -q --python .venv-airflow/bin/python --no-deps --require-hashes --link-mode=copy \
    -r docker/airflow.lock
echo "$stamp" >.venv-airflow/READY
