#!/usr/bin/env bash
# Makes docker/.env, which docker/compose.yaml reads: a random value for every secret that it asks for and the
# environment does not have. One that is there stays as it is.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"

umask 077
touch .env
sed -nE 's/.*[{]([A-Z_]+):[?].*/\1/p' compose.yaml | sort -u | while read -r name; do
    [ -n "${!name:-}" ] || grep -q "^$name=" .env || printf '%s=%s\n' "$name" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >>.env
done
