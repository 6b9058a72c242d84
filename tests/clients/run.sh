#!/bin/sh
# Runs the clients that people use through `avatar-proxy demo`. Needs node 20.15 or later with npm, python3 with venv, and a
# binary: `cargo build` first, or name one. Everything else goes to a temporary folder that is removed at the end.
#
#     tests/clients/run.sh [BINARY]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-$here/../../target/debug/avatar-proxy}
work=$(mktemp -d)
demo=
trap 'test -z "$demo" || kill "$demo"; rm -rf "$work"' EXIT

cd "$work"
npm install --silent --no-audit --no-fund --prefix "$work" @mattermost/client@11.9.0 ws@8
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mattermostdriver==7.3.2

"$binary" demo --listen 127.0.0.1:0 >demo.log 2>&1 &
demo=$!
port=
for _ in $(seq 100); do
    port=$(sed -n 's|.*http://127\.0\.0\.1:\([0-9]*\)/ in a browser.*|\1|p' demo.log)
    test -z "$port" || break
    sleep 0.1
done
test -n "$port" || { cat demo.log; exit 1; }

venv/bin/python "$here/driver.py" "$port"
node "$here/client.mjs" "$port"
