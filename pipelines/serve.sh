#!/bin/sh
# Until Ctrl-C: a Prefect server on this machine, a deployment for every preset, and a worker that runs them here.
# A server that already answers on the port is used as it is. PREFECT_SERVER_API_PORT chooses another port.
set -eu
cd "$(dirname "$0")/.."
port=${PREFECT_SERVER_API_PORT:-4200}
export PREFECT_API_URL="http://127.0.0.1:$port/api" DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
# Else a restarted server forgets who held a GPU slot, and the slot stays taken.
export PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem

healthy() { python -c "import urllib.request as u; u.urlopen('$PREFECT_API_URL/health', timeout=5)" 2>/dev/null; }

if ! healthy; then
    setsid prefect server start --host 127.0.0.1 --port "$port" & # setsid: Ctrl-C must reach the worker first
    server=$!
    trap 'kill $server; wait $server || true' EXIT
    trap 'exit 130' INT # dash forgets the line above when a signal ends it
    until healthy; do
        kill -0 $server # the shell ends here if the server did
        sleep 1
    done
fi
prefect work-pool inspect local >/dev/null 2>&1 || prefect work-pool create --type process local
python -m pipelines.deploy
# Prefect's worker fails when a run is retried before the process of the run is gone; the next one takes it.
until prefect worker start --pool local --limit 1; do
    healthy || exit 1
    sleep 1
done
