"""README and docs/: their commands exist, compose and run, and their links lead somewhere."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import PAGES, ROOT, Block, blocks

from byzshield_exp.commands.verbs import VERBS, dispatch

ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language in ("sh", "console") and block.what != "skip"]
# Programs that are not ours, which a checked block may name.
OTHERS = {"make", "tensorboard", "source", ".", "pip", "git"}
_NUMBER = re.compile(r"\d+(,\d{3})*(\.\d+)?(e[+-]?\d+)?")


def named(found: list[Block]):
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


def arguments_of(words: list[str]) -> list[str] | None:
    """The arguments of our own program behind its verb or without one; None: it is another."""
    if words[0] == "byzshield":
        return words[1:]
    if words[0] in ("python", "torchrun") and "byzshield_exp" in words:
        rest = words[words.index("byzshield_exp") + 1 :]
        return rest if rest and rest[0] in VERBS else ["run", *rest]
    return None


@named(SHELL)
def test_commands_are_valid(block, composed):
    assert block.commands(), "a block without a command"
    for words, _ in block.commands():
        ours = arguments_of(words)
        if ours is None:
            check_other(words)
        elif ours[0] == "run":
            composed([*ours[1:], *(["cluster=processes"] if words[0] == "torchrun" else [])])
        else:
            check_verb(*ours)


@pytest.fixture(scope="module")
def composed():
    """Compose the first point of a run's or a sweep's settings, and check their types."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from omegaconf import open_dict

    from byzshield_exp.commands import config as configuration
    from byzshield_exp.commands.choices import conf_dir

    configuration.register()
    Plugins.instance()

    def first(override):
        if not override.is_sweep_override():
            return override.input_line
        value = next(iter(override.sweep_string_iterator()))
        return f"{override.get_key_element()}={value}"

    def check(arguments: list[str]) -> None:
        settings = [one for one in arguments if "=" in one]
        assert {*arguments} - {*settings} <= {"-m", "--help", "..."}, arguments
        parsed = OverridesParser.create().parse_overrides(settings)
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("config", [first(one) for one in parsed], return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            configuration.plain(cfg)

    return check


def check_verb(verb: str, *arguments: str) -> None:
    """Each argument is one that tab completion offers, or a value or name of the user's."""
    assert verb in VERBS
    module = importlib.import_module(f"byzshield_exp.commands.{verb}")
    for place, argument in enumerate(arguments):
        if argument == "--":
            return
        offered = set(module.words(list(arguments[:place])))
        keys = {word.partition("=")[0] for word in offered if "=" in word}
        if "=" in argument and verb not in ("reproduce", "ec2", "migrate"):
            assert argument.partition("=")[0] in keys, argument
        elif argument.startswith("-"):
            assert argument in offered, argument
        elif verb in ("ec2", "completion", "list") and place == 0:
            assert argument in offered | {f"{word}s" for word in offered} | {"attacks"}, argument
        elif verb == "reproduce" and place == 0:
            assert {*argument.split(",")} <= offered, argument


def check_other(words: list[str]) -> None:
    program, *rest = words
    if program == "python":
        program, *rest = rest
        if program == "-m":
            importlib.import_module(rest[0])
            assert all((ROOT / one).exists() for one in rest if one.startswith("tests/"))
            return
        if program == "-c":
            compile(rest[0], "-c", "exec")
            return
    if program.startswith("scripts/"):
        source = (ROOT / program).read_text()
        for option in rest:
            assert not option.startswith("--") or option in source, option
        return
    assert program in OTHERS, words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in rest if "=" not in word]
        assert all(re.search(rf"^{one}:", makefile, re.M) for one in targets), words


@named([block for block in ALL if block.language in ("yaml", "json", "toml")])
def test_settings_can_be_read(block):
    assert {"yaml": yaml.safe_load, "json": json.loads}[block.language](block.text)


def test_what_is_not_tested_says_why():
    skipped = [block for block in ALL if block.what == "skip"]
    assert all(len(block.detail) > 5 for block in skipped)
    assert len(skipped) < len(ALL) / 4


DEAR = ("sweeps.md",)  # minutes


def runs(is_slow: bool):
    """The pages with blocks to run; among the slow tests those that have slow ones."""
    found = []
    for page in PAGES:
        its = [block for block in blocks(page) if block.what in ("run", "output", "file")]
        if is_slow and not any(block.is_slow for block in its):
            continue
        its = [block for block in its if is_slow or not block.is_slow]
        if any(block.what != "file" for block in its):
            marks = [pytest.mark.thorough] if is_slow and page.name in DEAR else []
            found.append(pytest.param(its, id=page.name, marks=marks))
    return pytest.mark.parametrize("page", found)


@runs(is_slow=False)
def test_blocks_run(page, typed):
    walk(page, typed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@runs(is_slow=True)
def test_slow_blocks_run(page, typed):
    walk(page, typed)


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Do a command line of ours in this process and an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(arguments: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["byzshield", *arguments])
        capsys.readouterr()
        code = dispatch(arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return call


def walk(page: list[Block], typed) -> None:
    """Do the blocks of a page, one after the other."""
    names: dict = {}
    for block in page:
        if block.what == "file":
            Path(block.detail).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
        else:
            for words, shown in block.commands():
                out = done(words, block.detail if block.what == "run" else "", typed)
                if block.what == "output":
                    compare(shown, out.splitlines(), masked=bool(block.detail), place=block.place)


def done(words: list[str], more: str, typed) -> str:
    ours = arguments_of(words)
    if ours is not None:
        others = {one.partition("=")[0] for one in more.split()} if ours[0] == "run" else set()
        kept = [word for word in ours if word.partition("=")[0] not in others]
        return typed([*kept, *more.split()] if others else ours)
    assert words[0] == "python", words
    ended = subprocess.run(
        [sys.executable, *words[1:]], capture_output=True, text=True, timeout=280, check=True
    )
    return ended.stdout


def compare(shown: list[str], out: list[str], masked: bool, place: str) -> None:
    """Compare lines; ``...`` stands for any number of them, or for any text within one."""

    def seen(line: str) -> str:
        return " ".join(_NUMBER.sub("#", line).split()) if masked else line.rstrip()

    def expected(line: str) -> str:
        return r"(?s:.*?)" if line == "..." else re.escape(seen(line)).replace(r"\.\.\.", ".*")

    pattern = "\n".join(map(expected, shown))
    text = "\n".join(map(seen, out))
    assert re.fullmatch(pattern, text), f"{place} shows\n{shown}\nbut it is\n{text}"


TORCHRUN = [block for block in SHELL if "--standalone" in block.text]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block,
            id=block.place,
            marks=pytest.mark.slow if block.page == "README.md" else pytest.mark.thorough,
        )
        for block in TORCHRUN
    ],
)
def test_torchrun_starts_what_the_pages_say(block, tmp_path):
    for words, _ in block.commands():
        if words[0] == "torchrun" and "--standalone" in words:
            ended = subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", *words[1:], "plan=true",
                 f"output_dir={tmp_path}"],
                capture_output=True, text=True, timeout=280,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stderr
            assert "new: " in ended.stdout


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_resolve(page):
    """Also those to headings, as GitHub and the site name them."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            there = page.parent / target if target else page
            assert there.exists(), target
            assert not anchor or anchor in headings(there), f"{target}#{anchor}"


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_picture_of_a_placement_is_that_of_its_script():
    sys.path.insert(0, str(ROOT / "scripts"))
    from draw_placement import mols, picture

    drawn = picture(mols(15, 3), num_byzantine=3)
    assert (ROOT / "docs/pictures/placement.svg").read_text() == drawn


def test_every_page_is_in_the_site():
    index = (ROOT / "docs/index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"\b{page.stem}>?$", index, re.M), page.name
