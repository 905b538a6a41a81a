#!/usr/bin/env bash
# Install what a release holds into empty environments, one Python after the other, and try it there:
# pip check, byzshield --version, list, and a run of three steps.
#
#   scripts/check_install.sh [DIST]     DIST: a folder with the wheel and the sdist; else they are built
#
# PYTHONS: which ones ("python3.11 python3.12 python3.13"); one that is missing is skipped and said.
# CPU=1: torch without CUDA, from PyTorch's own index. Each environment takes up to 6 GB and is
# removed before the next one; the sdist is installed over the wheel in the first one. Not a part of
# CI. PIP_ARGUMENTS: more options for pip.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH PYTHONHOME
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
read -ra pythons <<<"${PYTHONS:-python3.11 python3.12 python3.13}"
read -ra options <<<"${PIP_ARGUMENTS:-}"
if [ "${CPU:-}" = 1 ]; then options+=(--extra-index-url https://download.pytorch.org/whl/cpu); fi

find_python() { # NAME: on the path, or among pyenv's
  "$1" -c '' 2>/dev/null && command -v "$1" && return
  local -a found
  mapfile -t found < <(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/${1#python}.*/bin/$1")
  [ ${#found[@]} -gt 0 ] && echo "${found[-1]}"
}

try() { # WHAT: in the environment, from an empty folder
  "$work/env/bin/python" -m pip check
  (cd "$work/empty" && rm -rf outputs && "$work/env/bin/byzshield" --version &&
    "$work/env/bin/byzshield" list aggregators | head -n 1 &&
    "$work/env/bin/byzshield" run steps=3 | tail -n 1)
  echo "ok: $1"
}

mkdir "$work/empty"
dist=${1:-$work/dist}
if [ $# -eq 0 ]; then
  first=$(find_python "${pythons[0]}") || { echo "no ${pythons[0]} here" >&2; exit 1; }
  "$first" -m venv "$work/build"
  "$work/build/bin/python" -m pip install --quiet build
  "$work/build/bin/python" -m build --outdir "$dist" . >"$work/build.log" 2>&1 ||
    { tail -n 20 "$work/build.log" >&2; exit 1; }
  rm -rf "$work/build"
fi
wheels=("$dist"/*.whl) sdists=("$dist"/*.tar.gz)
if [ ! -f "${wheels[0]}" ] || [ ! -f "${sdists[0]}" ]; then echo "$dist: no wheel or no sdist" >&2; exit 1; fi
echo "built: ${wheels[0]##*/} ($(du -k "${wheels[0]}" | cut -f1) kB)," \
  "${sdists[0]##*/} ($(du -k "${sdists[0]}" | cut -f1) kB)"

tried=0
for name in "${pythons[@]}"; do
  if ! python=$(find_python "$name"); then echo "$name: not here, skipped"; continue; fi
  started=$SECONDS
  "$python" -m venv "$work/env"
  echo "== $("$python" --version): pip install ${wheels[0]##*/}"
  "$work/env/bin/python" -m pip install --quiet "${options[@]}" "${wheels[0]}"
  echo "$(du -sm "$work/env" | cut -f1) MB, $((SECONDS - started)) s"
  try "wheel, $("$python" --version)"
  if [ $tried -eq 0 ]; then
    "$work/env/bin/python" -m pip install --quiet --no-deps --force-reinstall "${sdists[0]}"
    try "sdist, $("$python" --version)"
  fi
  tried=$((tried + 1))
  rm -rf "$work/env"
done
echo "$tried of ${#pythons[@]} Pythons"
[ $tried -gt 0 ]
