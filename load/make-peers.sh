#!/bin/sh
# Makes the peers' environments from scratch under .peers/ (ignored by git): each peer in its own, because their pins exclude ours.
# Usage: load/make-peers.sh [jina] [mosec]      (default: both).   PYTHON names the interpreter, default python3 (3.11 is what was measured).
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}

# pip ends in ResolutionImpossible on jina's requirements; uv resolves them. With newer pydantic and fastapi than these
# jina's HTTP and WebSocket gateways fail at start (TypeError: '_ConfigMetaclass' object is not iterable).
jina_pins="jina==3.34.0 docarray==0.41.0 setuptools<81 pydantic==2.9.2 fastapi==0.115.14"
mosec_pins="mosec==0.9.8"

make_peer() { # name pins...
  home=$root/.peers/$1
  shift
  echo "making $home"
  rm -rf -- "$home"
  "$python" -m venv "$home"
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check uv
  "$home/bin/uv" pip install --quiet --python "$home/bin/python" "$@"
}

for peer in "${@:-jina mosec}"; do
  for name in $peer; do
    case $name in
      # shellcheck disable=SC2086  # one word per pin
      jina) make_peer jina $jina_pins ;;
      # shellcheck disable=SC2086
      mosec) make_peer mosec $mosec_pins ;;
      *) echo "unknown peer: $name (jina, mosec)" >&2; exit 2 ;;
    esac
  done
done

if command -v wrk >/dev/null; then
  wrk -v 2>&1 | head -n 1
else
  echo "wrk is missing: the HTTP profiles fall back to the slower Python client. Debian, Ubuntu: apt-get install wrk"
fi
