#!/usr/bin/env bash
# healthy.sh PORT [PATH]: whether something listens on a port of this container, and answers a GET of PATH there with
# 200. For health checks; needs nothing but bash.
set -euo pipefail

port=$1 path=${2:-}
if [ -z "$path" ]; then
    # Looked up, not connected to: a server of TLS logs everybody who says nothing.
    hex=$(printf ':%04X' "$port")
    while read -r _ local _ state _; do
        [ "$state" = 0A ] && [ "${local: -5}" = "$hex" ] && exit 0
    done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    echo "nothing listens on port $port" >&2
    exit 1
fi
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET %s HTTP/1.0\r\nHost: localhost:%s\r\n\r\n' "$path" "$port" >&3
read -r -t 5 answer <&3
[[ $answer == HTTP/*' 200 '* ]] || { echo "port $port answers $path with ${answer%$'\r'}" >&2; exit 1; }
