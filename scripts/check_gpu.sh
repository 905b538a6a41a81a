#!/usr/bin/env bash
# Check the program on a GPU in nine minutes: tests, speed, figure 2 of the ByzShield paper, profile.
#
#   scripts/check_gpu.sh [--device cuda|cpu] [FOLDER]     FOLDER: of the results, outputs/check_gpu
#
# Each part writes FOLDER/PART.txt; a part that is done is not done again, one that failed or ran out
# of time is. The last lines are a table of all parts. --device cpu rehearses it at small sizes, with
# four times the time.
# BYZSHIELD_DATA: a folder with CIFAR-10 (cifar-10-batches-py), or 12,000 of its pictures
# (cifar10-12k-jpeg.tar), for figure 2. LIMIT_S: seconds in all (540). PYTHON: one with torch.
set -uo pipefail
device=cuda folder=
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2-}; shift ;;
    -*) sed -n 's/^# \{0,1\}//;2,10p' "$0"; exit 2 ;;
    *) folder=$1 ;;
  esac
  shift || exit 2
done
mkdir -p "${folder:=$(dirname "$0")/../outputs/check_gpu}" || exit
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 # this checkout, not a wheel of it
case $device in
  cuda)
    tests=(-m gpu) bench=(--steps 8) curve=() profile=() slow=1
    if "$python" -c 'import xdist' 2>/dev/null; then tests+=(-n 4 --dist worksteal); fi
    card='torch.cuda.get_device_name()'
    ;;
  cpu)
    small=(--device cpu --width 8 --batch 25)
    tests=() bench=("${small[@]}" --steps 2 --large-batch 81)
    curve=("${small[@]}" --steps 4 --every 2)
    profile=("${small[@]}" --precision float32) slow=4
    card='"CPU at small sizes, a rehearsal: no goal applies"'
    ;;
  *) echo "check_gpu: --device $device: cuda or cpu" >&2; exit 2 ;;
esac
machine=$("$python" -c "import torch; print(f'{$card}, torch {torch.__version__}')" 2>&1) || {
  echo "check_gpu: $python finds no GPU for torch: ${machine##*$'\n'}" >&2
  exit 2
}
machine=${machine##*$'\n'} # warnings come before it
commit=${COMMIT:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
end=$((SECONDS + ${LIMIT_S:-$((540 * slow))}))

work=$(mktemp -d) parts=() child=

# part NAME SECONDS COMMAND...: do a part that is not done yet.
part() {
  local name=$1 limit=$(($2 * slow)) start=$SECONDS left=$((end - SECONDS)) code
  shift 2
  parts+=("$name")
  [ -f "$folder/$name.txt" ] && return
  [ "$left" -lt "$limit" ] && limit=$left
  [ "$limit" -lt 5 ] && return
  echo "== $name, $limit s at most" >&2
  echo "on $machine, commit $commit" >"$folder/$name.part"
  timeout --kill-after=10 "$limit" "$@" </dev/null >>"$folder/$name.part" 2>&1 &
  child=$!
  wait $child
  code=$? child=
  echo "== $name: exit $code after $((SECONDS - start)) s" | tee -a "$folder/$name.part" >&2
  [ $code -ne 0 ] || mv "$folder/$name.part" "$folder/$name.txt"
}

# Print what the parts found, whether they are done or not.
table() {
  local name file verdict
  echo
  cat "$folder"/*.txt "$folder"/*.part 2>/dev/null | grep '^on ' | sort -u
  printf '\n| what | figure | goal | |\n|---|---|---|---|\n'
  for name in "${parts[@]}"; do
    file=$folder/$name.txt verdict=met
    [ -f "$file" ] || file=$folder/$name.part verdict=missed
    if [ ! -f "$file" ]; then
      echo "| $name | not done: no time was left | | |"
    elif [ "$name" = tests ]; then
      echo "| tests/gpu | $(counts "$file") | no failure | $verdict |"
    else
      grep '^| ' "$file"
      [ $verdict = met ] || echo "| $name | $(last "$file") | done | missed |"
    fi
  done
  if [ -z "$data" ]; then echo "| figure 2 | skipped: BYZSHIELD_DATA has no CIFAR-10 | | |"; fi
}

last() { sed -n 's/^== [^:]*: //p' "$1" | grep . || echo "was interrupted"; }

counts() {
  local said
  said=$(sed -En 's/^=+ (.*(passed|failed|skipped|error).*) =+$/\1/p' "$1" | tail -n 1)
  echo "${said:-$(grep -c ' PASSED ' "$1") passed, $(grep -c ' FAILED ' "$1") failed, then $(last "$1")}"
}

# shellcheck disable=SC2317,SC2329 # called by a trap
finish() {
  [ -z "$child" ] || kill "$child" 2>/dev/null
  wait
  rm -rf "$work"
  table
}
trap finish EXIT
trap 'exit 130' INT TERM

bench() { part "$1" 80 "$python" scripts/bench_gpu.py "${bench[@]}" "${@:2}"; }

figure2() {
  [ -z "$data" ] || part "figure2_$1" 75 "$python" scripts/figure2_curve.py "${1}_q5" \
    "$work/$1" --data "$data" "${curve[@]}"
}

data=${BYZSHIELD_DATA:-}
if [ -f "$data/cifar10-12k-jpeg.tar" ]; then
  mkdir "$work/pictures" && tar -xf "$data/cifar10-12k-jpeg.tar" -C "$work/pictures"
  data=$work/pictures
elif [ ! -d "$data/cifar-10-batches-py" ]; then
  data=
fi

rows='K=25 none,K=25 alie,K=63 none'
# From the end of the alphabet: votes, runs and graphs say most, should the time not be enough.
mapfile -t files < <(printf '%s\n' tests/gpu/test_*.py | LC_ALL=C sort -r)
part tests 150 "$python" -m pytest "${files[@]}" "${tests[@]}" -v -p no:cacheprovider
if [ "$device" = cuda ]; then bench bench_tf32 --precisions tf32 --only "$rows"; fi
bench bench_float32 --precisions float32 --only "$rows"
bench bench_server --precisions --only server
figure2 byzshield
part profile 60 "$python" scripts/profile_step.py "${profile[@]}"
figure2 detox
figure2 median
for name in "${parts[@]}"; do [ -f "$folder/$name.txt" ] || exit 1; done
