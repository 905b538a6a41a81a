#!/usr/bin/env bash
# Create an environment and install this checkout into it with all that its tests need: `make install`.
#
#   scripts/install.sh [FOLDER]     FOLDER: of the environment, .venv
#
# PYTHON: the one to use (python3). CPU=1: torch without CUDA, from PyTorch's own index; else as PyPI
# has it: with CUDA on Linux. A line for each phase, and every 15 s the size so far and what pip says.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv}
python=${PYTHON:-python3}
index=()
if [ "${CPU:-}" = 1 ]; then index=(--extra-index-url https://download.pytorch.org/whl/cpu); fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

size() { du -sm "$folder" | cut -f1; }

phase() { # NAME COMMAND...: run it, with a line when it begins, while it lasts and when it ends
  local name=$1 started=$SECONDS next=15 code=0 pid
  shift
  echo "$name ..."
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if ((SECONDS - started >= next)); then
      printf '  %3d s  %5d MB  %s\n' "$next" "$(size)" "$(tail -n 1 "$log" | cut -c1-70)"
      ((next += 15))
    fi
  done
  wait "$pid" || code=$?
  if ((code)); then
    tail -n 20 "$log" >&2
    echo "$name: failed after $((SECONDS - started)) s, exit code $code" >&2
    exit "$code"
  fi
  echo "  done, $((SECONDS - started)) s"
}

mapfile -t torch < <(sed -n 's/^  "\(torch[^"]*\)".*/\1/p' pyproject.toml)
phase "1/4 environment $folder, $("$python" --version)" "$python" -m venv "$folder"
phase "2/4 pip" "$folder/bin/python" -m pip install --upgrade pip
phase "3/4 torch ($([ "${CPU:-}" = 1 ] && echo "for CPUs" || echo "the largest part"))" \
  "$folder/bin/python" -m pip install "${index[@]}" "${torch[@]}"
phase "4/4 byzshield_exp and the rest" \
  "$folder/bin/python" -m pip install "${index[@]}" -e '.[test]'
echo "installed: $folder has $(size) MB, $SECONDS s in all"
