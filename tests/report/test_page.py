"""The page of a real sweep in a real browser: no network, no errors, no text over another one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("altair", reason="needs the extra report")

from running import run_program

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
LOOK = """
<script>
const look = setInterval(async () => {
  const charts = [...document.querySelectorAll('.chart')];
  if (charts.some(one => one.dataset.drawn !== 'yes')) return;
  clearInterval(look);
  const over = [];
  for (const chart of charts) {
    const sloped = one => /rotate\\((?!0\\)|-90\\)|270\\))/.test(one.getAttribute('transform'));
    const texts = [...chart.querySelectorAll('svg text')]
      .filter(one => one.textContent.trim() && !sloped(one));
    const boxes = texts.map(one => one.getBoundingClientRect());
    const frame = chart.querySelector('svg').getBoundingClientRect();
    boxes.forEach((a, i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1
          || a.bottom > frame.bottom + 1) over.push(['cut off', texts[i].textContent]);
      boxes.slice(i + 1).forEach((b, j) => {
        const other = texts[i + 1 + j].textContent;
        if (other === texts[i].textContent && Math.abs(a.left - b.left) < 1) return;  // a halo
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
          over.push([chart.parentElement.id, texts[i].textContent, other]);
      });
    });
  }
  const marks = () => charts[0].querySelectorAll('.mark-line path').length;
  const clicked = [marks()];
  const label = charts[0].querySelector('.role-legend-label text');
  label?.dispatchEvent(new MouseEvent('click', {bubbles: true, view: window}));
  await new Promise(done => setTimeout(done, 500));
  clicked.push(marks());
  const fetched = performance.getEntriesByType('resource').map(one => one.name);
  document.body.dataset.seen = JSON.stringify({charts: charts.length, over, fetched, clicked});
}, 100);
</script>
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)"),
]


def looked_at(page: Path):
    """Open a page without a network; what its charts are like, and what the console says."""
    copy = page.with_name("looked_at.html")
    before, body, after = page.read_text().rpartition("</body>")
    copy.write_text(before + LOOK + body + after)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,900",
         "--virtual-time-budget=60000", "--dump-dom", f"file://{copy}"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&")), console


def reported(folder, out):
    done = run_program("report", str(folder), f"out={out}", timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The sweep that people do first: 24 runs, approach x attack x q x seed."""
    folder = tmp_path_factory.mktemp("digits")
    done = run_program(
        "run", "-m", "approach=mols,detox", "attack=alie,reversed_gradient", "q=2,4",
        "seed=range(3)", "steps=4", "eval_every=2", "batch_size=75", "adversary.start=3",
        f"output_dir={folder / 'outputs'}", timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


def test_a_sweep_on_digits_is_a_page(digits, tmp_path):
    said = reported(digits, tmp_path)
    assert "24 of 24 runs are done" in said
    seen, console = looked_at(tmp_path / "report.html")
    pictures = sorted(path.stem for path in (tmp_path / "figures").glob("*.png"))
    assert (seen["over"], seen["fetched"], console) == ([], [], [])
    assert seen["charts"] == len(pictures)
    assert seen["clicked"] == [8, 4]  # of two curves in four panels one is left
    assert {
        "test_accuracy_by_step", "final_test_accuracy_by_q", "heatmap_test_accuracy_attack_defence",
        "heatmap_test_accuracy_q_defence", "epsilon_realised", "distorted_files", "time_by_phase",
        "server_memory", "cost_test_accuracy", "final_epsilon_hat_by_q",
    } <= {*pictures}  # fmt: skip
    assert "attack starts" in (tmp_path / "figures" / "test_accuracy_by_step.svg").read_text()


def test_peers_have_bans_and_no_files(tmp_path):
    folder = tmp_path / "outputs"
    done = run_program(
        "run", "-m", "approach=btard", "K=6", "q=2", "attack=sign_flip", "attack.scale=1000",
        "adversary.start=3", "seed=0,1", "steps=24", "eval_every=4", "batch_size=96",
        f"output_dir={folder}", timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reported(folder, tmp_path / "report")
    seen, console = looked_at(tmp_path / "report" / "report.html")
    assert (seen["over"], seen["fetched"], console) == ([], [], [])
    names = {path.stem for path in (tmp_path / "report" / "figures").glob("*.svg")}
    assert {"test_accuracy_by_step", "traffic"} <= names
    assert not {"epsilon_realised", "distorted_files"} & names
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Hollow triangles: peers are banned." in page
