"""Which files travel, and which are watched."""

import pytest

from portico.exception import InvalidError
from portico.runtime import sources
from portico.sdk.mounts import LocalMount
from portico.sdk.patterns import FilePatternMatcher


@pytest.fixture
def project(tmp_path):
    """Makes a project of these files and gives its folder."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        return tmp_path

    return make


def places(root, **options):
    return sorted(sources.project_sources(root, root / "app.py", **options).files)


def test_modules_and_packages(project):
    """A script takes the modules next to it and the packages below it along, and nothing but Python."""
    root = project("app.py", "b.py", "data.json", "pkg/__init__.py", "pkg/sub/c.py", "space/d.py")
    assert places(root) == ["app.py", "b.py", "pkg/__init__.py", "pkg/sub/c.py", "space/d.py"]


def test_what_is_not_the_project(project):
    """Environments, caches, hidden folders and built files stay."""
    root = project(
        *("app.py", ".git/a.py", ".venv/a.py", "env/pyvenv.cfg", "env/lib/a.py", "node_modules/a.py"),
        *("__pycache__/a.py", "site-packages/a.py", "build/lib/a.py", "dist/a.py", ".hidden/a.py"),
    )
    assert places(root) == ["app.py"]


def test_package_named_build(project):
    """A folder named like built files is a package when it says so."""
    assert places(project("app.py", "build/__init__.py")) == ["app.py", "build/__init__.py"]


def test_package_alone(project):
    """An app that was named as a module takes its top-level package along."""
    root = project("app/__init__.py", "app/web.py", "other.py")
    found = sources.project_sources(root, root / "app/web.py", package="app")
    assert sorted(found.files) == ["app/__init__.py", "app/web.py"]
    assert found.watch == [str(root / "app")]


def test_entry_alone(project):
    """Without the source, only the entry goes."""
    root = project("app.py", "b.py")
    assert list(sources.entry_source(root, root / "app.py").files) == ["app.py"]


def test_links(project):
    """A link to a folder is followed, once; a link to nothing is none."""
    root = project("app.py", "pkg/a.py")
    (root / "again").symlink_to(root)
    (root / "gone.py").symlink_to(root / "nowhere.py")
    assert {"app.py", "pkg/a.py"} <= set(places(root))
    assert "gone.py" not in places(root)


def test_huge_folder(project, monkeypatch):
    """In a folder with too much in it only what was imported goes, and the user is told; the walk ends early."""
    root = project("app.py", "imported.py", *(f"junk/{number}.txt" for number in range(20)))
    (root / "junk" / "other.py").touch()
    module = type(pytest)("imported")
    module.__file__ = str(root / "imported.py")
    monkeypatch.setitem(__import__("sys").modules, "imported", module)
    found = sources.project_sources(root, root / "app.py", max_entries=10)
    assert sorted(found.files) == ["app.py", "imported.py"]
    assert sorted(found.watch) == [str(root / "app.py"), str(root / "imported.py")]
    assert "folder of its own" in found.warnings[0]


def test_too_many_files(project, monkeypatch):
    """The number of files is bounded too."""
    monkeypatch.setattr(sources, "MAX_FILES", 3)
    assert places(project("app.py", *(f"m{number}.py" for number in range(5)))) == ["app.py"]


def test_mounts(project):
    """Files that an image adds get their places, and their folders are watched."""
    root = project("app.py", "data/a.txt", "data/b.tmp", "data/sub/c.txt", "one.txt")
    mounts = (
        LocalMount(root / "data", "stuff", FilePatternMatcher("*.tmp")),
        LocalMount(root / "one.txt", "stuff/one.txt"),
        LocalMount(root / "data" / "sub", ""),
    )
    found = sources.add_mounts(sources.entry_source(root, root / "app.py"), mounts)
    assert sorted(found.files) == ["app.py", "c.txt", "stuff/a.txt", "stuff/one.txt", "stuff/sub/c.txt"]
    assert found.files["stuff/one.txt"] == str(root / "one.txt")
    assert str(root / "data") in found.watch


def test_same_file_twice(project):
    """One file for one place may be added twice; two files may not."""
    root = project("app.py", "b/app.py")
    base = sources.entry_source(root, root / "app.py")
    assert list(sources.add_mounts(base, (LocalMount(root / "app.py", "app.py"),)).files) == ["app.py"]
    with pytest.raises(InvalidError, match=r"Two files for the same place 'app\.py'"):
        sources.add_mounts(base, (LocalMount(root / "b", ""),))


def test_names_that_are_no_text(project):
    """A name that is not UTF-8 cannot travel, and stays."""
    root = project("app.py", "data/a.txt")
    (root / "data" / "\udcff.txt").touch()
    (root / "\udcff.py").touch()
    assert places(root) == ["app.py"]
    found = sources.add_mounts(sources.entry_source(root, root / "app.py"), (LocalMount(root / "data", "data"),))
    assert sorted(found.files) == ["app.py", "data/a.txt"]
