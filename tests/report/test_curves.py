"""Means over runs that were evaluated at other steps, ended early or diverged, worked by hand."""

from itertools import pairwise

import pytest

pytest.importorskip("altair", reason="needs the extra report")

import pandas as pd
from vl_convert import vegalite_to_scenegraph

from byzshield_exp.report.costs import plane
from byzshield_exp.report.curves import Reference, bans, ceiling, curve_points, marked
from byzshield_exp.report.heatmaps import heatmaps
from byzshield_exp.report.lines import curve_chart
from byzshield_exp.report.panels import Panels
from byzshield_exp.report.study import study_of
from byzshield_exp.report.theme import PAPER, STACKED, Styles
from byzshield_exp.report.typeset import to_latex, to_markdown
from byzshield_exp.report.words import labelled, measure, spelled
from byzshield_exp.results import Runs

ACCURACY = measure("test_accuracy")


def made(values, states=None):
    """Runs of one place, and their steps: ``values`` by folder, then by step."""
    states = states or {}
    runs = pd.DataFrame(
        [
            {
                "folder": name,
                "state": states.get(name, "done"),
                "row": "",
                "column": "",
                "series": "",
            }
            for name in values
        ]
    )
    steps = pd.DataFrame(
        [
            {"folder": name, "step": step, "test_accuracy": value}
            for name in values
            for step, value in values[name].items()
        ]
    )
    return runs, steps


def curve(*args):
    points = curve_points(*made(*args), ACCURACY)
    return {row.step: (pytest.approx(row.mean), row.n) for row in points.itertuples()}


def test_a_mean_is_of_the_same_runs_at_every_step():
    every_two = {"a": {2: 0.1, 4: 0.3, 6: 0.5}, "b": {3: 0.2, 6: 0.7}}
    assert curve(every_two) == {6: (0.6, 2)}
    shorter = {"a": {2: 0.1, 4: 0.3, 6: 0.5}, "b": {2: 0.3, 4: 0.5}}
    assert curve(shorter) == {2: (0.2, 2), 4: (0.4, 2), 6: (0.5, 1)}
    gap = {"a": {2: 0.1, 4: float("nan"), 6: 0.5}, "b": {2: 0.3, 4: 0.5, 6: 0.7}}
    assert curve(gap) == {2: (0.2, 2), 6: (0.6, 2)}


def test_a_run_that_diverged_keeps_its_last_accuracy():
    values = {"a": {2: 0.4, 4: 0.6, 6: 0.8}, "b": {2: 0.2, 3: 0.1}}
    assert curve(values, {"b": "diverged"})[6] == (0.45, 2)
    assert curve(values, {"b": "stopped"})[6] == (0.8, 1)


def test_a_long_curve_is_averaged_over_neighbouring_steps():
    points = curve_points(*made({"a": {step: step / 300 for step in range(1, 301)}}), ACCURACY)
    assert list(points["step"]) == list(range(3, 301, 3))
    assert list(points["mean"]) == pytest.approx([step / 300 for step in range(2, 300, 3)])
    assert 3 <= sum(marked(points, [""])) <= 8


def test_a_ban_is_on_the_curve():
    runs, steps = made({"a": {2: 0.2, 4: 0.6}, "b": {2: 0.4, 3: float("nan"), 4: 0.8}})
    steps["banned_now"] = [(), (), (), (5, 1), ()]
    (ban,) = bans(runs, steps, curve_points(runs, steps, ACCURACY)).to_dict("records")
    assert (ban["step"], ban["n"], ban["mean"]) == (3, 2, pytest.approx(0.5))


def test_a_cell_is_the_best_rule_under_the_worst_attack():
    values = {  # by q, rule, attack and seed
        (1, "median", "alie"): (0.8, 0.6), (1, "median", "ipm"): (0.9, 0.5),
        (1, "mean", "alie"): (0.9, 0.9), (1, "mean", "ipm"): (0.1, 0.3),
        (2, "median", "alie"): (0.4, 0.4), (2, "median", "ipm"): (0.6, 0.6),
        (2, "mean", "alie"): (0.2, 0.0), (2, "mean", "ipm"): (0.9, 0.9),
    }  # fmt: skip
    runs = pd.DataFrame(
        [
            {"folder": f"{key}{seed}", "name": "", "state": "done", "q": key[0],
             "aggregator": key[1], "attack": key[2], "seed": seed, "K": 15, "steps_done": 4,
             "test_accuracy": value}
            for key, pair in values.items() for seed, value in enumerate(pair)
        ]
    )  # fmt: skip
    found = Runs(
        runs, pd.DataFrame(columns=["folder", "step"]), ["q", "aggregator", "attack", "seed"]
    )
    drawn = list(heatmaps(study_of(found, ACCURACY)))
    assert all(figure.caption.endswith(" Colours from 0 to 1.") for figure in drawn)
    rects, _text = drawn[0].specification(PAPER)["layer"]
    assert rects["encoding"]["color"]["scale"]["domain"] == [0, 1]
    figures = {figure.name: figure.table for figure in drawn}
    table = figures["heatmap_test_accuracy_q_aggregator"]
    cells = {(row[0], row[1]): row[2:] for row in table.itertuples(index=False, name=None)}
    assert cells["1", "median"] == (pytest.approx(0.7), 2, "ALIE")
    assert cells["2", "mean"] == (pytest.approx(0.1), 2, "ALIE")
    table = figures["heatmap_test_accuracy_q_attack"]
    cells = {(row[0], row[1]): row[2:] for row in table.itertuples(index=False, name=None)}
    assert cells["1", "IPM"] == (pytest.approx(0.7), 2, "median")
    assert cells["2", "IPM"] == (pytest.approx(0.9), 2, "mean")


def cells(mark):
    """The panels of a drawn chart, in reading order."""
    if isinstance(mark, list):
        return [cell for one in mark for cell in cells(one)]
    if not isinstance(mark, dict):
        return []
    if mark.get("name") == "cell":
        return sorted(mark["items"], key=lambda one: (one.get("y", 0), one.get("x", 0)))
    return [cell for one in mark.values() for cell in cells(one)]


def test_a_curve_is_in_its_own_panel_beside_empty_ones():
    panels = Panels(columns=["x", "y"], rows=["a", "b"])
    here = {"series": "", "low": 0.1, "high": 0.9, "n": 2}
    points = pd.DataFrame(
        [
            {"row": row, "column": column, "step": step, "mean": mean, **here}
            for row, column, mean in (("a", "x", 0.2), ("b", "x", 0.3), ("b", "y", 0.4))
            for step in (1, 2)
        ]
    )
    chart = curve_chart(points, panels, ACCURACY, references=[Reference("", 2, 0.98, "", "a", "y")])
    drawn = cells(vegalite_to_scenegraph(chart.to_dict())["scenegraph"])
    lines = [len(mark["items"]) for cell in drawn for mark in cell["items"]
             if mark.get("name") == "child_layer_1_pathgroup"]  # fmt: skip
    assert lines == [1, 0, 1, 1]
    marks = [len(mark["items"]) for cell in drawn for mark in cell["items"]
             if mark.get("name") == "child_layer_3_marks"]  # fmt: skip
    assert marks == [0, 1, 0, 0]
    assert all(0 <= one["y"] <= 146 for cell in drawn for mark in cell["items"]
               if mark.get("marktype") == "symbol" for one in mark["items"])  # fmt: skip


def texts(mark):
    """All that a drawn chart says."""
    if isinstance(mark, list):
        return [text for one in mark for text in texts(one)]
    if not isinstance(mark, dict):
        return []
    return [mark["text"]] if "text" in mark else texts(list(mark.values()))


@pytest.mark.parametrize(
    ("count", "wide", "axes"), [(3, 3, 3), (4, 2, 2), (5, 3, 5), (6, 3, 3), (7, 4, 7), (8, 4, 4)]
)
def test_the_last_line_of_panels_is_full_or_its_empty_places_are(count, wide, axes):
    names = [f"panel {at}" for at in range(count)]
    panels = Panels(columns=names)
    here = {"row": "", "series": "", "mean": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    points = pd.DataFrame([{"column": name, "step": 1, **here} for name in names])
    assert panels.wide == wide
    chart = vegalite_to_scenegraph(curve_chart(points, panels, ACCURACY).to_dict())
    assert texts(chart).count("step") == axes
    assert Panels(columns=[f"{name}, with a long title" for name in names]).wide <= 3


def test_markers_of_costs_and_accuracies_are_inside_the_frame():
    points = [("median", 0.01, 1.0), ("mean", 0.1, 0.0), ("krum", 0.04, 1.0)]
    runs = pd.DataFrame(
        [
            {"folder": f"{rule}{q}", "state": "done", "q": q, "aggregator": rule, "steps_done": 4,
             "seconds_per_step": seconds, "test_accuracy": accuracy}
            for rule, seconds, accuracy in points for q in (1, 2)
        ]
    )  # fmt: skip
    found = Runs(runs, pd.DataFrame(columns=["folder", "step"]), ["q", "aggregator"])
    (figure,) = plane(study_of(found, ACCURACY))
    scene = vegalite_to_scenegraph(figure.specification(PAPER))
    assert "test accuracy under the worst q" in texts(scene)
    (frame,) = scene["scenegraph"]["items"]
    drawn = [mark for mark in frame["items"] if mark.get("name") == "layer_1_marks"]
    markers = [(one["x"], one["y"]) for mark in drawn for one in mark["items"]]
    assert len(markers) == 3
    radius = 3
    for x, y in markers:
        assert radius < x < frame["width"] - radius
        assert radius < y < frame["height"] - radius


def test_a_loss_that_diverges_leaves_the_axis_to_the_others():
    losses = {"mean": [2.0, 50.0, 1e20, 1e35], "median": [2.0, 1.0, 0.5, 0.2]}
    points = pd.DataFrame(
        [
            {"row": "", "column": "", "series": series, "step": step, "mean": loss, "low": loss,
             "high": loss, "n": 1}
            for series, values in losses.items() for step, loss in enumerate(values, 1)
        ]
    )  # fmt: skip
    loss = measure("loss")
    assert ceiling(points, loss) == 2000
    assert ceiling(points[points["mean"] < 1e20], loss) == float("inf")
    chart = curve_chart(points, Panels(tuple(losses)), loss).to_dict()
    scene = vegalite_to_scenegraph(chart)
    assert {"1e-1", "1e+4"} <= set(texts(scene))
    assert "1e+5" not in texts(scene)
    (frame,) = scene["scenegraph"]["items"]
    marks = [mark for mark in frame["items"] if str(mark.get("name")).startswith("layer_2_")]
    drawn = [one for mark in marks for one in mark["items"]]
    assert len(drawn) == 6  # of 8
    assert all(0 <= one["y"] <= frame["height"] for one in drawn)
    clipped = [one["mark"]["type"] for one in chart["layer"] if one["mark"].get("clip")]
    assert clipped == ["area", "line"]


def luminance(colour):
    """Rec. 709, as a grey printer has it."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_series_differ_without_colour():
    styles = Styles(6)
    assert len({*zip(styles.dashes, styles.shapes, strict=True)}) == 6
    more = Styles(40)
    assert len({*zip(more.colours, more.dashes, more.shapes, strict=True)}) == 40
    greys = [luminance(colour) for colour in STACKED]
    assert all(after - before > 15 for before, after in pairwise(greys))


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "byzshield_q3": "ByzShield, q = 3", "multi_krum": "Multi-Krum", "alie": "ALIE",
        "krum_byzfl": "Krum (ByzFL)", "btard_tau10": "BTARD, tau = 10",
        "reversed_gradient": "reversed gradient", "detox_multi_krum": "DETOX Multi-Krum",
    }.items(),
)  # fmt: skip
def test_names_are_spelled_for_readers(name, said):
    assert spelled(name) == said


def test_settings_are_told_with_their_names():
    assert labelled("approach", "mols") == "ByzShield (MOLS)"
    assert labelled("optimizer.lr", 0.05) == "learning rate 0.05"
    assert labelled("pre_aggregator", ("arc", "nnm")) == "ARC + NNM"
    assert labelled("attack", "my_attack.over_shoot") == "my_attack.over_shoot"
    assert labelled("curve", "detox_lr0.1") == "DETOX lr0.1"
    assert measure("seconds.vote", 0.01).axis == "vote (ms)"
    assert measure("server_memory_bytes", 3e6).axis == "peak memory of the server (MiB)"


def test_tables_are_escaped():
    table = pd.DataFrame({"a_b": ["50 % & 3 | {x}", None], "n": [0.123456, float("nan")]})
    assert to_markdown(table).splitlines() == [
        "| a_b | n |", "| --- | ---: |", "| 50 % & 3 \\| {x} | 0.1235 |", "| - | - |",
    ]  # fmt: skip
    latex = to_latex(table)
    assert r"a\_b & n \\" in latex
    assert r"50 \% \& 3 | \{x\} & 0.1235 \\" in latex
    assert latex.index("toprule") < latex.index("midrule") < latex.index("bottomrule")


def test_many_settings_are_ordered_by_those_that_occur():
    """Nine settings of ten values: a list of all their combinations would be 20 GB."""
    keys = [f"optimizer.key{at}" for at in range(9)]
    runs = pd.DataFrame(
        [{"folder": str(value), **dict.fromkeys(keys, value)} for value in (9, 3, 1, 7, 0, 2, 4)]
    )
    study = study_of(Runs(runs, pd.DataFrame(), tuple(keys)), ACCURACY, by=keys)
    firsts = [label.split(", ")[0] for label in study.order(study.dimensions)]
    assert firsts == [labelled(keys[0], value) for value in (0, 1, 2, 3, 4, 7, 9)]
    assert study.order([]) == [""]


def test_a_size_that_goes_with_the_placement_is_no_axis():
    rows = [("mols", 15, 3), ("mols", 15, 3), ("detox", 15, 3), ("baseline", 25, 1)]
    runs = pd.DataFrame(
        [
            {"folder": str(at), "approach": approach, "K": workers, "r": replicas, "q": at % 2}
            for at, (approach, workers, replicas) in enumerate(rows)
        ]
    )
    study = study_of(Runs(runs, pd.DataFrame(), ["approach", "K", "r", "q"]), ACCURACY)
    assert [one.name for one in study.dimensions] == ["approach", "q"]
    assert "go with the settings shown: workers K, replicas of a file r" in study.remarks[0]
    alone = study_of(Runs(runs.assign(approach="mols"), pd.DataFrame(), ["K", "r"]), ACCURACY)
    assert [one.name for one in alone.dimensions] == ["K"]
