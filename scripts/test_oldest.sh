#!/usr/bin/env bash
# Run the fast tests with the oldest versions that pyproject.toml declares (6 GB, once).
# scripts/test_oldest.sh [FOLDER [PYTEST ARGUMENTS...]]: FOLDER is for the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-oldest}
shift || true

python=python$(sed -n 's/^requires-python = ">=\(.*\)"/\1/p' pyproject.toml)
[ -d "$folder" ] || "$python" -m venv "$folder"
"$folder/bin/python" - >"$folder/oldest.txt" <<'PYTHON'  # each lower bound becomes a pin
import re, tomllib
for line in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    if found := re.match(r"([\w-]+)>=([\w.]+)", line):
        print("{}=={}".format(*found.groups()))
PYTHON
"$folder/bin/python" -m pip install --quiet --upgrade pip
"$folder/bin/python" -m pip install --quiet -e '.[test]' -c "$folder/oldest.txt"
echo "$("$folder/bin/python" --version) $(tr '\n' ' ' <"$folder/oldest.txt")"
"$folder/bin/python" -m pytest -m 'not slow and not thorough and not slurm' "$@"
