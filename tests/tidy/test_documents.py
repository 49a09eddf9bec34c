"""Documents say what is so: functions, files, commands and targets that they name exist; decisions keep their form."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from api.problems import CODES
from ops.cli.main import COMMANDS
from streams.domain.transitions import TRANSITIONS
from tests.tidy.sources import ROOT, functions, markdown_files, text, tree

README = Path("README.md")
ADRS = sorted(path for path in markdown_files() if path.parent == Path("ops/adr") and path.name[0].isdigit())
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives"]
ADR_LINES_MAX = 60  # a page
FUNCTION = re.compile(r"`([\w/.]+\.py):([\w.]+)`")
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
STEPS = ["Accept", "Decide", "Record", "Reply", "Confirm", "Authorise", "Notify", "Settle"]


@pytest.mark.parametrize("document", markdown_files(), ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    dead = [link for link in LINK.findall(text(document)) if not (ROOT / document.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("document", markdown_files(), ids=str)
def test_functions_that_a_document_names_exist(document: Path) -> None:
    missing = [
        f"{file}:{name}"
        for file, name in FUNCTION.findall(text(document))
        if not (ROOT / file).exists() or name not in _names(Path(file))
    ]
    assert missing == []


def test_the_readme_names_a_function_for_each_step_of_the_life_of_a_payment() -> None:
    steps = re.findall(r"^(\d)\. \*\*(\w+)\.\*\*(.*?)(?=^\d\. |^$)", text(README), re.MULTILINE | re.DOTALL)
    assert [(int(number), name) for number, name, _ in steps] == list(enumerate(STEPS, start=1))
    assert [name for _, name, description in steps if not FUNCTION.search(description)] == []


def test_commands_that_documents_show_exist() -> None:
    shown = {
        (document, word)
        for document in (*markdown_files(), Path("Makefile"))
        for word in re.findall(r"(?:`|\n|bin/|BIN\)/)payments ([a-z]+)", text(document))
    }
    assert {(document, word) for document, word in shown if not _is_command(word)} == set()


def test_make_targets_that_the_readme_shows_exist_and_all_are_shown() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", text(Path("Makefile")), re.MULTILINE)) - {"help"}
    assert set(re.findall(r"(?:`|\n)make ([a-z-]+)", text(README))) == targets


def test_the_guide_to_the_interface_lists_every_code_under_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.+) \|$", text(Path("api/README.md")), re.MULTILINE)
    listed = {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert listed == CODES


def test_the_guide_to_the_interface_lists_every_transition() -> None:
    rows = re.findall(r"^\| ([A-Z]*) ?\| ([A-Z]+) \| `payment\.(\w+)` \|$", text(Path("api/README.md")), re.MULTILINE)
    listed = {(before or None, after): f"Payment{event.capitalize()}" for before, after, event in rows}
    assert listed == {
        (before and before.value, after.value): event.__name__ for (before, after), event in TRANSITIONS.items()
    }


def test_the_changelog_speaks_of_the_version_that_is_built() -> None:
    version = tomllib.loads(text(Path("pyproject.toml")))["project"]["version"]
    changelog = text(Path("CHANGELOG.md"))
    assert f"## [{version}]" in changelog or "## [Unreleased]" in changelog


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


@pytest.mark.parametrize("decision", ADRS, ids=lambda path: path.stem)
def test_a_decision_has_its_sections_and_its_place_in_the_list(decision: Path) -> None:
    lines = text(decision).splitlines()
    title = re.fullmatch(rf"# {decision.name[:4]}: (.+)", lines[0])
    assert title is not None
    assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS
    assert len(lines) <= ADR_LINES_MAX
    assert f"- [{decision.name[:4]}]({decision.name}): {title[1]}" in text(Path("ops/adr/README.md"))


def _is_command(word: str) -> bool:
    return word in COMMANDS and find_spec(COMMANDS[word].target.partition(":")[0]) is not None


def _names(path: Path) -> set[str]:
    module = tree(path)
    classes = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    return classes | {name for name, _ in functions(module)}
