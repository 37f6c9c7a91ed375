"""Which changes matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from portico.cli import watching
from portico.cli.watching import Scope, ignored_file


@pytest.mark.parametrize(
    "name",
    ["4913", ".seed.py.swp", "seed.py~", ".#seed.py", "#seed.py#", ".DS_Store", "x.tmp", "seed.py.tmp.17", "x.pyc"],
)
def test_temporary_files_are_ignored(name):
    """What editors leave behind for a moment is no change."""
    assert ignored_file(name)


@pytest.mark.parametrize("name", ["seed.py", "data.json", "template.html", ".env", "4914", "swap.txt"])
def test_source_files_are_not_ignored(name):
    """What a user writes is."""
    assert not ignored_file(name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "some.tmp" / ".hidden" / "project"  # names above the project do not matter
    for folder in (
        "pkg/deep",
        ".git/objects",
        ".venv/lib",
        "my-env/lib",
        "__pycache__",
        "node_modules/x",
        "state/blobs",
    ):
        (root / folder).mkdir(parents=True)
    (root / "my-env" / "pyvenv.cfg").write_text("")
    return root


def test_only_the_users_folders_are_watched(project):
    """Not the repository's own, nor virtual environments of any name, nor Portico's home."""
    scope = Scope([str(project)], without=[project / "state"])
    assert scope.folders == [str(project), str(project / "pkg"), str(project / "pkg" / "deep")]
    assert scope.complete


def test_concerns(project):
    """Files in watched folders do, others do not."""
    scope = Scope([str(project)], without=[project / "state"])
    assert scope.concerns(str(project / "seed.py"))
    assert scope.concerns(str(project / "pkg" / "deep" / "x.py"))
    assert not scope.concerns(str(project / "seed.py~"))
    assert not scope.concerns(str(project / "__pycache__"))
    assert not scope.concerns(str(project / "state"))
    assert not scope.concerns(str(project / ".git" / "index"))


def test_single_file(project):
    """A file that is watched by itself does not bring its neighbours along."""
    (project / "pkg" / "x.py").write_text("")
    scope = Scope([str(project / "pkg" / "x.py")])
    assert scope.folders == [str(project / "pkg")]
    assert scope.concerns(str(project / "pkg" / "x.py"))
    assert not scope.concerns(str(project / "pkg" / "y.py"))


def test_new_folders_are_noticed(project):
    """A folder that appears is to be watched, unless it is one of those that never are."""
    scope = Scope([str(project)])
    (project / "new").mkdir()
    (project / ".tox").mkdir()
    assert scope.adds_folder([str(project / "new")])
    assert not scope.adds_folder([str(project / ".tox"), str(project / "pkg"), str(project / "seed.py")])


def test_a_home_folder_is_not_watched_whole(project, monkeypatch):
    """The upper levels come first, and there is an end."""
    monkeypatch.setattr(watching, "MAX_FOLDERS", 2)
    scope = Scope([str(project)])
    assert scope.folders == [str(project), str(project / "pkg")]
    assert not scope.complete
