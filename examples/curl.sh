#!/bin/sh
# The same requests by hand: sh examples/curl.sh [http://127.0.0.1:8080]
set -eu
host="${1:-http://127.0.0.1:8080}"
json='Content-Type: application/json'

echo "one request, two notes, the two most frequent words of each:"
curl --fail-with-body -sS "$host/count" -H "$json" \
    -d '{"data": [{"text": "the queue keeps the note"}, {"text": "to be or not to be"}], "parameters": {"top": 2}}'

echo; echo "a stream of words, as server-sent events:"
curl --fail-with-body -sSN "$host/words?text=one+by+one"

echo; echo "a mistake is named, with status 422:"
curl -sS -w '\nstatus %{http_code}\n' "$host/count" -H "$json" -d '{"data": [{"txt": "no text"}]}'

echo; echo "is the flow ready?"
curl --fail-with-body -sS "$host/readyz"
echo
