#!/usr/bin/env bash
# An Airflow in one container: API server, DAG processor and scheduler around a SQLite, for the chains of
# conf/airflow/containers/. Its user is `admin`, whose password comes from the environment.
set -euo pipefail

: "${GENODL_AIRFLOW_PASSWORD:?has no value}"
umask 077
airflow=/opt/genodl/.venv-airflow/bin/airflow
export AIRFLOW_HOME=/srv/genodl
mkdir -p "$AIRFLOW_HOME/dags"
cp /opt/genodl/conf/airflow/genodl_dags.py "$AIRFLOW_HOME/dags/"
python -c 'import json, os; print(json.dumps({"admin": os.environ["GENODL_AIRFLOW_PASSWORD"]}))' >"$AIRFLOW_HOME/passwords.json"
unset GENODL_AIRFLOW_PASSWORD
secret=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export GENODL_CHAINS=/opt/genodl/conf/airflow/containers
export AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__EXECUTOR=LocalExecutor AIRFLOW__CORE__PARALLELISM=2
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=admin:admin
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=$AIRFLOW_HOME/passwords.json
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:8090/execution/
export AIRFLOW__API__HOST=0.0.0.0 AIRFLOW__API__PORT=8090 AIRFLOW__API__WORKERS=1
export AIRFLOW__API_AUTH__JWT_SECRET=$secret # the same for the three; tokens of an earlier start end with it

"$airflow" db migrate
"$airflow" api-server &
"$airflow" dag-processor &
"$airflow" scheduler --skip-serve-logs &
wait -n || true # whichever ends first: the container ends with it, and is started again
exit 1
