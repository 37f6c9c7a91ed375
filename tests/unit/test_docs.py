"""The documentation against the product: links, commands, snippets and names of variables."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest

from portico.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELL = {">", "|", "&&"}  # what follows is the shell's
ASSIGNMENT = re.compile(r"[A-Z_]+=")
INDIRECT = {"CI", "NO_COLOR", "PATH", "PYENV_ROOT", "TERM"}  # conventions of others that the source goes by


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as they appear in links."""
    prose = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    """All links of all pages that lead to somewhere in the repository."""
    for page in PAGES:
        for target in LINK.findall(FENCE.sub("", page.read_text())):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


def commands() -> Iterator[tuple[Path, list[str]]]:
    """The arguments of every `portico` (or `modal`) command line in a shell block."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                while words and ASSIGNMENT.match(words[0]):
                    words.pop(0)
                words = list(takewhile(lambda word: word not in SHELL, words))
                if words and Path(words[0]).name in ("portico", "modal"):
                    yield page, words[1:]


def check_command(command: click.Command, arguments: list[str]) -> None:
    """AssertionError or UsageError where this command does not understand these arguments. Runs nothing."""
    context = click.Context(command)
    values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    if isinstance(command, click.Group):
        assert rest, f"{command.name} needs a command"
        inner = command.get_command(context, rest[0])
        assert inner is not None, f"there is no command {rest[0]!r}"
        check_command(inner, rest[1:])
        return
    assert not rest, f"too many arguments: {rest}"
    for parameter in command.params:
        value = values.get(parameter.name or "")
        assert isinstance(value, str) or not parameter.required, f"{parameter.name} is missing"
        if isinstance(value, str):
            parameter.type.convert(value, parameter, context)


def read_variables() -> set[str]:
    """The names of environment variables that the source looks up, as literals."""
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            found |= _looked_up(node)
    return found


def _looked_up(node: ast.AST) -> set[str]:
    match node:
        case ast.Call(func=ast.Attribute(value=owner, attr="get" | "pop"), args=[ast.Constant(value=str(name)), *_]):
            return {name} if ast.unparse(owner).endswith("environ") else set()
        case ast.Subscript(value=owner, slice=ast.Constant(value=str(name))):
            return {name} if ast.unparse(owner).endswith("environ") and name.isupper() else set()
        case ast.keyword(arg="envvar", value=ast.Constant(value=str(name))):
            return {name}
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_]):
            return {name}
    return set()


def documented_variables() -> set[str]:
    """The names in the table of configuration.md."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    section = text.partition("## Environment variables")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"[A-Z_]+", row)}


@pytest.mark.parametrize(("page", "target"), [pytest.param(*link, id=f"{link[0].name}:{link[1]}") for link in links()])
def test_every_link_leads_to_something_that_is_there(page, target):
    """A relative link names a file of the repository, and its anchor a heading of that file."""
    path, _, anchor = target.partition("#")
    place = (page.parent / path).resolve() if path else page
    assert place.exists()
    assert not anchor or anchor in anchors(place)


@pytest.mark.parametrize(
    ("page", "arguments"), [pytest.param(*found, id=f"{found[0].name}:{' '.join(found[1])}") for found in commands()]
)
def test_every_documented_command_line_is_understood(page, arguments):
    """A command line in the documentation names a command that is there, with flags that it has."""
    check_command(cli, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles(page):
    """A Python block in the documentation is valid Python."""
    for number, block in enumerate(blocks(page, "python")):
        compile(block, f"{page.name}, block {number}", "exec")


def test_a_wrong_command_line_would_be_noticed():
    """The check above fails for flags, commands and arguments that are not there."""
    for wrong in (["serve", "app.py", "--nothing"], ["start"], ["deploy"], ["down", "extra"], ["app", "remove", "x"]):
        with pytest.raises((AssertionError, click.UsageError)):
            check_command(cli, wrong)


def test_the_documented_variables_are_those_that_the_source_reads():
    """configuration.md names each environment variable that Portico reads, and no other."""
    assert documented_variables() == read_variables()
    assert {name for name in read_variables() if not name.startswith(("PORTICO_", "MODAL_"))} == INDIRECT


def test_every_page_is_reachable_from_the_readme():
    """Each page of the documentation is linked from the README, or from a page that is."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = [(page.parent / target.partition("#")[0]).resolve() for of, target in links() if of == page]
        waiting += [inner for target in targets for inner in (target.glob("*.md") if target.is_dir() else [target])]
    assert {page for page in PAGES if page.parts[-2] in ("docs", "decisions")} <= seen


def test_each_decision_has_a_number_of_its_own() -> None:
    """The one of its file's name, in its title."""
    records = [page for page in PAGES if page.parts[-2] == "decisions"]
    numbers = [int(page.name[:4]) for page in records]
    assert numbers == list(range(1, len(records) + 1))
    titles = [page.read_text().partition(".")[0] for page in records]
    assert titles == [f"# {number}" for number in numbers]


def test_each_test_that_the_conformance_table_names_exists() -> None:
    """And each line of its tables names one."""
    text = (ROOT / "docs" / "conformance.md").read_text()
    source = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)\(", source, re.MULTILINE))
    assert set(re.findall(r"`(test_\w+)`", text)) - there == set()
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) > 50
    assert [row for row in rows if not re.search(r"`test_\w+`", row)] == []
