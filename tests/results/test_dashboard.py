"""What TensorBoard shows: tags, what is left out, the page of a run, what a resume adds."""

import io
import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
import yaml
from running import SMALL, metrics_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from byzshield_exp.assignments import mols
from byzshield_exp.distortion import worst_case
from byzshield_exp.results.placement_picture import placement_png
from byzshield_exp.results.tags import description_of, scalars

GROUPS = {"accuracy", "loss", "byzantine", "vote", "time", "traffic"}
ALL = {"scalars": 0, "tensors": 0, "images": 0, "histograms": 0}
PEERS = (
    "approach=btard", "K=6", "q=2", "attack=sign_flip", "attack.scale=1000", "adversary.start=3",
    "steps=12",
)  # fmt: skip


def events_of(folder):
    (path,) = folder.glob("**/config.yaml")
    return EventAccumulator(str(path.parent), size_guidance=ALL).Reload()


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tags_have_groups_descriptions_and_the_numbers_of_the_records(run, tmp_path):
    summary = run("steps=6", "eval_every=3", "histograms=true")
    events, records = events_of(tmp_path), metrics_of(tmp_path)
    tags = [tag for kind in ("scalars", "images", "histograms") for tag in events.Tags()[kind]]
    assert {tag.partition("/")[0] for tag in tags} <= GROUPS
    assert all(events.SummaryMetadata(tag).summary_description for tag in tags)
    for tag, read in {
        "loss/train": lambda record: record["loss"],
        "byzantine/liars": lambda record: len(record["byzantine"]),
        "byzantine/eps_hat_realised": lambda record: record["distorted_files"] / 25,
        "byzantine/eps_hat_worst": lambda record: summary["epsilon_hat"],
        "time/compute": lambda record: record["seconds"]["compute"],
    }.items():
        expected = [(record["step"], pytest.approx(read(record))) for record in records]
        assert points(events, tag) == expected
    assert [step for step, _ in points(events, "accuracy/test")] == [3, 6]
    assert points(events, "accuracy/test")[-1][1] == pytest.approx(summary["final_test_accuracy"])
    forged = events.Histograms("byzantine/norms_forged")
    honest = events.Histograms("byzantine/norms_honest")
    assert [one.histogram_value.num for one in forged] == [r["distorted_files"] for r in records]
    assert {one.histogram_value.num for one in honest} == {25 - records[0]["distorted_files"]}


def test_what_is_always_0_is_not_shown_and_a_resume_doubles_nothing(run, tmp_path):
    run("adversary.start=6", "steps=4", "checkpoint_every=2")
    early = events_of(tmp_path)
    assert not [tag for tag in early.Tags()["scalars"] if "realised" in tag or "vote/" in tag]
    run("adversary.start=6", "steps=8", "checkpoint_every=2")
    events = events_of(tmp_path)
    for tag in events.Tags()["scalars"]:
        steps = [step for step, _ in points(events, tag)]
        assert steps == sorted(set(steps)), tag
        assert any(value for _, value in points(events, tag)), tag
    realised = points(events, "byzantine/eps_hat_realised")
    late = pytest.approx(0.12)
    assert realised == [(1, 0), (5, 0), (6, late), (7, late), (8, late)]
    assert [step for step, _ in points(events, "loss/train")] == list(range(1, 9))
    assert len(events.Images("byzantine/placement")) == 1
    assert len(events.Tensors("run/text_summary")) == 1


def test_peers_have_tags_of_their_own(run, tmp_path):
    run(*PEERS, "histograms=true")
    events, records = events_of(tmp_path), metrics_of(tmp_path)
    tags = set(events.Tags()["scalars"])
    assert {tag.partition("/")[0] for tag in tags} <= GROUPS
    assert points(events, "byzantine/peers_left") == [(r["step"], r["alive"]) for r in records]
    banned = dict(points(events, "byzantine/banned"))
    first = next(record["step"] for record in records if record["banned"])
    assert (banned[1], banned[first - 1], banned[first]) == (0, 0, records[first - 1]["banned"])
    assert "traffic/peers_data" in tags
    assert not [tag for tag in tags if tag.startswith("vote/") or "eps_hat" in tag]
    far = events.Histograms("byzantine/distances_attacking")
    near = events.Histograms("byzantine/distances_honest")
    assert min(one.histogram_value.min for one in far) > max(
        one.histogram_value.max for one in near
    )


def test_an_unknown_number_of_a_users_protocol_is_shown():
    assert scalars({"step": 3, "my_count": 2, "who": (1, 5), "events": ["a"]}) == {
        "byzantine/my_count": 2, "byzantine/who": 2,
    }  # fmt: skip
    assert description_of("byzantine/my_count") == ""


@pytest.mark.parametrize(
    "options",
    [
        ["network.hidden=[16,8]", "attack.z=1.0"],
        pytest.param(
            ["-m", "experiment=byzshield/fig09", "scale=smoke", "hydra.sweeper.only=[detox_q2]"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["a run", "a curve"],
)
def test_the_printed_command_finds_the_run_finished(cli, tmp_path, options):
    more = [*SMALL, f"output_dir={tmp_path / 'its results'}"]
    code, _, err = cli(*options, *more)
    assert code == 0, err
    (path,) = tmp_path.glob("**/config.yaml")
    command = yaml.safe_load(path.read_text())["command"]
    (text,) = events_of(tmp_path).Tensors("run/text_summary")
    printed = text.tensor_proto.string_val[0].decode()
    assert command.split() == re.sub(r"\\\n", "", printed.split("\n\n")[1]).split()
    assert "  K: 15" in printed
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("byzshield", "run")
    assert len(arguments) <= 4 + len(SMALL) + 10
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert "finished" in out or "1 of 1 done" in out
    assert len([*tmp_path.glob("**/config.yaml")]) == 1


def test_the_placement_is_drawn_with_the_worst_set_and_the_files_it_wins():
    import numpy as np
    from PIL import Image

    assignment = mols(num_workers=15, replication=3)
    liars = worst_case(assignment, 5).workers
    pixels = np.asarray(Image.open(io.BytesIO(placement_png(assignment, liars))))
    held = assignment.incidence.numpy()
    won = held[list(liars)].sum(axis=0) >= 2
    assert won.sum() == 8
    for worker in range(15):
        for file in range(25):
            corner = pixels[34 + 18 * worker + 3, 34 + 18 * file + 3].tolist()
            middle = pixels[34 + 18 * worker + 9, 34 + 18 * file + 9].tolist()
            colour = [238, 238, 238]
            if held[worker, file]:
                colour = [213, 94, 0] if worker in liars else [86, 180, 233]
            assert corner == colour
            dotted = held[worker, file] and worker in liars and won[file]
            assert middle == ([40, 40, 40] if dotted else colour)


@contextmanager
def tensorboard(folder):
    """TensorBoard's own server: ``ask(path, question=None) -> answer``."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = next(filter(None, (re.search(r"http://\S+:\d+/", line) for line in server.stderr)))

        def ask(path, question=None):
            body = None if question is None else json.dumps(question).encode()
            request = urllib.request.Request(
                f"{found[0]}data/plugin/{path}", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)

        yield ask
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


@pytest.mark.slow
def test_its_server_shows_groups_hparams_layout_text_and_pictures(run, tmp_path):
    accuracies = {q: run(f"q={q}", folder=tmp_path / str(q))["final_test_accuracy"] for q in (0, 3)}
    accuracies[2] = run(*PEERS, folder=tmp_path / "peers")["final_test_accuracy"]
    with tensorboard(tmp_path) as ask:
        deadline = time.monotonic() + 60
        while len(tags := ask("scalars/tags")) < 3 and time.monotonic() < deadline:
            time.sleep(1)  # while the runs are being read
        assert {tag.partition("/")[0] for its in tags.values() for tag in its} == GROUPS
        assert all(one["description"] for its in tags.values() for one in its.values())
        layout = {one["title"]: one["chart"] for one in ask("custom_scalars/layout")["category"]}
        assert [chart["multiline"]["tag"] for chart in layout["byzantine"]] == [
            ["byzantine/eps_hat_realised", "byzantine/eps_hat_worst"]
        ]
        (all_runs,) = layout["accuracy"][0]["multiline"]["tag"]
        assert re.match(all_runs, "accuracy/test")
        assert set(map(tuple, ask("text/tags").values())) == {("run/text_summary",)}
        pictures = ask("images/tags")
        assert len(pictures) == 3
        assert all(its["byzantine/placement"]["description"] for its in pictures.values())
        table = ask("hparams/experiment", {"experimentName": "", "includeMetrics": True})
        columns = [one["name"] for one in table["hparamInfos"]]
        assert columns == ["aggregator", "approach", "attack", "lr", "q", "K", "r", "seed"]
        question = {
            "experimentName": "", "startIndex": 0, "sliceSize": 10,
            "allowedStatuses": ["STATUS_SUCCESS"],
            "colParams": [
                *({"hparam": name, "includeInResult": True} for name in columns),
                *({"metric": one["name"], "includeInResult": True} for one in table["metricInfos"]),
            ],
        }  # fmt: skip
        groups = ask("hparams/session_groups", question)["sessionGroups"]
        shown = {group["hparams"]["q"]: group["metricValues"][0]["value"] for group in groups}
        assert shown == pytest.approx(accuracies)
        assert all(set(group["hparams"]) == set(columns) for group in groups)
