"""One name, one thing; and documents name tests that exist."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "byzshield_exp"
FILES = [*PACKAGE.rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
VERBS = {path.stem for path in (PACKAGE / "commands").iterdir()}


def test_no_two_public_classes_share_a_name():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_files_share_a_name_but_a_verb_and_what_it_commands():
    names = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert {name for name, count in names.items() if count > 1} <= VERBS


def test_the_package_has_few_rooms():
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 24


def test_documents_name_tests_that_exist():
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"\btest_[a-z0-9_]+\.py", path.read_text()))
        assert named <= there | {"test_NAME.py", "test_VERB.py"}, path.name
