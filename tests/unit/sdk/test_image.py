"""Image chains: what becomes of each builder, and which orders and places are refused."""

from pathlib import Path

import pytest

import portico as modal
from portico.exception import InvalidError, UnsupportedError
from portico.sdk import context
from portico.sdk.mounts import LocalMount

IMAGE = modal.Image.debian_slim()


@pytest.fixture
def container(monkeypatch):
    """This process is a container for the time of a test."""
    monkeypatch.setattr(context, "_container", None)
    context.enter_container("seed", "ap-1", {})


def steps(image):
    return [(step.kind, step.arguments, step.options) for step in image.spec.steps]


def test_chain_is_immutable():
    """Each builder gives a new image and leaves the old one as it was."""
    longer = IMAGE.pip_install("numpy")
    assert steps(IMAGE) == []
    assert steps(longer) == [("pip_install", ("numpy",), {})]


def test_packages_are_flattened():
    """Strings and lists of strings are one list of packages."""
    assert steps(IMAGE.pip_install("a", ["b", "c"]).run_commands(["x", "y"], "z")) == [
        ("pip_install", ("a", "b", "c"), {}),
        ("run_commands", ("x", "y", "z"), {}),
    ]


def test_pip_options():
    """pip's options are kept where they are given."""
    image = IMAGE.pip_install(
        "a", index_url="https://i", extra_index_url="https://e", pre=True, extra_options="--no-deps"
    )
    assert steps(image)[0][2] == {
        "index_url": "https://i",
        "extra_index_url": "https://e",
        "pre": "true",
        "extra_options": "--no-deps",
    }


def test_nothing_to_install():
    """A builder without arguments is no step."""
    assert IMAGE.pip_install().run_commands([]) == IMAGE


def test_order_of_the_steps():
    """Steps come in the order in which they were written."""
    image = IMAGE.env({"A": "1"}).pip_install("a").workdir("/srv").run_commands("true")
    assert [step.kind for step in image.spec.steps] == ["env", "pip_install", "workdir", "run_commands"]


@pytest.mark.parametrize("packages", [("--pre",), (3,), ([3],)])
def test_packages_that_are_none(packages):
    """Options and numbers are no packages."""
    with pytest.raises(InvalidError):
        IMAGE.pip_install(*packages)


def test_requirements_file(tmp_path):
    """A requirements file is read when the image is made."""
    (tmp_path / "requirements.txt").write_text("numpy\n")
    image = IMAGE.pip_install_from_requirements(str(tmp_path / "requirements.txt"), index_url="https://i")
    assert (image.spec.steps[0].kind, image.spec.steps[0].text) == ("requirements", "numpy\n")


def test_requirements_file_of_uv(tmp_path):
    """`uv_pip_install` takes requirements files and packages."""
    (tmp_path / "requirements.txt").write_text("numpy\n")
    image = IMAGE.uv_pip_install("pandas", requirements=[str(tmp_path / "requirements.txt")])
    assert [step.kind for step in image.spec.steps] == ["requirements", "pip_install"]


def test_missing_requirements_file(tmp_path):
    """A file that is not there is named."""
    with pytest.raises(InvalidError, match=r"no such file: .*/none\.txt"):
        IMAGE.pip_install_from_requirements(str(tmp_path / "none.txt"))


def test_files_are_not_read_in_a_container(container, tmp_path):
    """In a container the files of the user's machine are not missed."""
    IMAGE.pip_install_from_requirements(str(tmp_path / "none.txt"))
    IMAGE.pip_install_from_pyproject(str(tmp_path / "none.toml"))
    IMAGE.add_local_file(tmp_path / "none", "none").add_local_dir(tmp_path / "none", "none")
    IMAGE.add_local_python_source("no_such_module")


def test_pyproject(tmp_path):
    """A project's dependencies and its named optional groups are installed."""
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\ndependencies=["a"]\n[project.optional-dependencies]\nweb=["b"]\ndev=["c"]\n')
    assert steps(IMAGE.pip_install_from_pyproject(str(path), ["web"])) == [("pip_install", ("a", "b"), {})]
    with pytest.raises(InvalidError, match="no optional group gpu"):
        IMAGE.pip_install_from_pyproject(str(path), ["gpu"])


@pytest.mark.parametrize("text", ["[", "[tool.poetry]\n"])
def test_pyproject_without_dependencies(tmp_path, text):
    """A file without [project] dependencies, or that is not TOML, is an error."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InvalidError, match="pip_install_from_pyproject"):
        IMAGE.pip_install_from_pyproject(str(tmp_path / "pyproject.toml"))


def test_python_version():
    """A version is kept as it is written."""
    assert modal.Image.debian_slim("3.12").spec.python_version == "3.12"
    assert modal.Image.debian_slim(python_version="3.12.1").spec.python_version == "3.12.1"


@pytest.mark.parametrize("version", [3.1, 3, "3", "2.7", "py312", "3.12-slim", ""])
def test_bad_python_version(version):
    """A number is refused with a hint, for 3.10 without quotes is 3.1."""
    with pytest.raises(InvalidError) as caught:
        modal.Image.debian_slim(version)
    assert "3.1" in caught.value.hint


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.apt_install("git", ["curl"]),
        modal.Image.from_registry("python:3.12", add_python="3.12"),
        modal.Image.from_dockerfile("Dockerfile"),
        modal.Image.micromamba(),
        IMAGE.dockerfile_commands("RUN true"),
        IMAGE.run_function(steps),
        IMAGE.entrypoint(["sh"]),
    ],
)
def test_what_needs_a_root_filesystem_is_recorded(image):
    """Such a builder can be written; the engine refuses its step, by its name."""
    assert len(image.spec.steps) == 1
    assert hasattr(modal.Image, image.spec.steps[0].kind)


def test_what_is_not_there():
    """Builders that this server has not say what to use."""
    for builder in (IMAGE.uv_sync, lambda: IMAGE.poetry_install_from_file("x"), lambda: IMAGE.from_id("im-1")):
        with pytest.raises(UnsupportedError):
            builder()


def test_build_time_secrets():
    """Variables for a build alone are refused, not forgotten."""
    with pytest.raises(UnsupportedError, match="`secrets=`"):
        IMAGE.pip_install("a", secrets=[modal.Secret.from_dict({"A": "1"})])


def test_force_build():
    """Any step may ask for a new build."""
    assert IMAGE.pip_install("a", force_build=True).env({"A": "1"}).spec.force_build


@pytest.mark.parametrize(
    ("remote", "place"), [("data", "data"), ("./data/x", "data/x"), ("/root/data", "data"), ("/root", ""), (".", "")]
)
def test_places(tmp_path, remote, place):
    """A relative path and one below /root are places in the app's folder."""
    assert IMAGE.add_local_dir(tmp_path, remote).mounts == (LocalMount(tmp_path, place),)


@pytest.mark.parametrize("remote", ["/data", "/", "/rooted/x"])
def test_places_elsewhere(tmp_path, remote):
    """Other absolute paths need a root filesystem."""
    with pytest.raises(UnsupportedError, match="cannot put files at") as caught:
        IMAGE.add_local_dir(tmp_path, remote)
    assert "below the app's folder" in caught.value.hint


def test_place_above(tmp_path):
    """No file leaves the app's folder."""
    with pytest.raises(InvalidError, match=r"must not contain '\.\.'"):
        IMAGE.add_local_dir(tmp_path, "../x")


def test_absolute_place_is_said(tmp_path):
    """A file below /root is found by a relative path, and the user is told."""
    assert "'data' below the app's folder" in IMAGE.add_local_dir(tmp_path, "/root/data").warnings[0]


def test_file_into_a_folder(tmp_path):
    """A remote path that ends in "/" takes the file's own name."""
    (tmp_path / "a.txt").touch()
    assert IMAGE.add_local_file(tmp_path / "a.txt", "data/").mounts[0].place == "data/a.txt"


def test_missing_local_files(tmp_path):
    """What is to be added must be there, and be what it should be."""
    (tmp_path / "a.txt").touch()
    with pytest.raises(InvalidError, match="no such file"):
        IMAGE.add_local_file(tmp_path, "x")
    with pytest.raises(InvalidError, match="no such folder"):
        IMAGE.add_local_dir(tmp_path / "a.txt", "x")


def test_building_on_top_of_added_files(tmp_path):
    """Files that come at the start of a container cannot be built upon; copied ones can."""
    with pytest.raises(InvalidError, match="cannot come after") as caught:
        IMAGE.add_local_dir(tmp_path, "x").pip_install("a")
    assert "copy=True" in caught.value.hint
    assert len(IMAGE.add_local_dir(tmp_path, "x", copy=True).pip_install("a").mounts) == 1


def test_python_source(tmp_path, monkeypatch):
    """A module or package is found by its name and keeps its place on the import path."""
    (tmp_path / "lonely.py").touch()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    module, package = IMAGE.add_local_python_source("lonely", "packed").mounts
    assert (module.local, module.place) == (tmp_path / "lonely.py", "lonely.py")
    assert (package.local, package.place) == (tmp_path / "packed", "packed")
    assert package.ignore(Path("data.txt"))
    assert not package.ignore(Path("sub/module.py"))


def test_python_source_that_is_none():
    """A module that cannot be found is named."""
    with pytest.raises(InvalidError, match="'no_such_module'"):
        IMAGE.add_local_python_source("no_such_module")


def test_imports_on_the_users_side():
    """An import that only works in the image is no error here."""
    with IMAGE.imports():
        import no_such_module  # noqa: F401


def test_imports_in_a_container(container, capsys):
    """In a container a failed import is said, with the image that misses it."""
    with IMAGE.pip_install("numpy").imports():
        raise ImportError("No module named 'x'")
    said = capsys.readouterr().err
    assert "No module named 'x'" in said
    assert "pip_install" in said


def test_pipe():
    """A chain goes on through a function."""
    assert IMAGE.pipe(lambda image, name: image.pip_install(name), "a") == IMAGE.pip_install("a")
