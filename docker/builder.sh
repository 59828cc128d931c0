#!/usr/bin/env bash
# builder.sh COMMAND...: a command of an image's build, with what the builder was handed as secrets: certificates to
# trust besides (of a proxy), and a pip.conf that names an index. Neither is left in a layer.
set -euo pipefail

if [ -s /run/secrets/certificates ]; then
    export SSL_CERT_FILE=/run/secrets/certificates PIP_CERT=/run/secrets/certificates
fi
if [ -s /run/secrets/pip ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip
fi
export SPARK_LOCAL_IP=127.0.0.1 # a builder's host may have a name that nobody knows
exec "$@"
