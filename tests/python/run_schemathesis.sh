#!/usr/bin/env bash
# Sends what the OpenAPI document allows, and what it does not, to a server of its own:
# no 5xx, no undocumented status or media type, no answer that differs from its schema.
# usage: run_schemathesis.sh BINARY [SCHEMATHESIS]
set -euo pipefail
binary=$1
schemathesis=${2:-schemathesis}
work=$(mktemp -d)
"$binary" serve --port 0 --log-level error >"$work/out" 2>"$work/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
  url=$(sed -n 's/^quantd listening on //p' "$work/out")
  [[ $url ]] && break
  sleep 0.1
done
[[ $url ]] || { cat "$work/log" >&2; exit 1; }
status=0
# One worker: two of them race in the parser of Python before 3.11.8 (cpython issue 106905).
(cd "$work" && timeout 400 "$schemathesis" run "$url/openapi.json" \
  --url "$url" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
  --phases examples,coverage,fuzzing \
  --max-examples "${SCHEMATHESIS_EXAMPLES:-150}" \
  --seed 1 \
  --request-timeout 20 \
  --suppress-health-check all \
  --workers 1) || status=$?
kill -0 "$server" || { echo "the server died" >&2; cat "$work/log" >&2; exit 1; }
# A run in which nothing was accepted proves nothing.
metrics=$(curl -sS "$url/metrics")
for path in /v1/quantize /v1/dequantize /v1/compare /v1/inspect '/v2/models/{model}/infer'; do
  grep "_count{.*route=\"$path\"" <<<"$metrics" | grep 'method="POST"' | grep -q 'status_code="200"' || {
    echo "no request to $path was accepted: does the document describe its body?" >&2
    status=1
  }
done
if grep -q panicked "$work/log"; then cat "$work/log" >&2; exit 1; fi
exit "$status"
