#!/usr/bin/env bash
# Run the fast tests with the oldest versions that pyproject.toml declares (6 GB, once).
# scripts/test_oldest.sh [FOLDER [PYTEST ARGUMENTS...]]: FOLDER is for the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-oldest}
shift || true

declared() {  # each lower bound as a pin: requires-python first, then the dependencies
  python3 - <<'PYTHON'
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
for line in ["python" + project["requires-python"], *project["dependencies"]]:
    if found := re.match(r"([\w-]+)>=([\w.]+)", line):
        print("{}=={}".format(*found.groups()))
PYTHON
}

python=python$(declared | sed -n 's/^python==//p')
[ -d "$folder" ] || "$python" -m venv "$folder"
declared | grep -v '^python==' >"$folder/oldest.txt"
"$folder/bin/python" -m pip install --quiet --upgrade pip
"$folder/bin/python" -m pip install --quiet -e '.[test]' -c "$folder/oldest.txt"
cat "$folder/oldest.txt"
"$folder/bin/python" -m pytest -m 'not slow and not slurm' "$@"
