"""What a function finds installed, set and added, as its image says."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

import pytest

from portico.images.interpreters import Interpreters
from portico.images.plan import OLDEST_PYTHON, own_version
from tests.e2e.conftest import Machine

HEAD = """
import os
import sys
from pathlib import Path

import modal

app = modal.App("{name}")
image = {image}


@app.function(image=image{more})
@modal.fastapi_endpoint()
def f():
    {body}
"""

MAKE = """
import os
import sysconfig

with open(os.path.join(sysconfig.get_path("purelib"), "made.py"), "w") as module:
    module.write(f"bird = {os.environ['BIRD']!r}")
"""


def write(machine: Machine, name: str, image: str, body: str, more: str = "") -> str:
    """An app of one function with this image; its file."""
    machine.write(f"{name}.py", HEAD.format(name=name, image=image, body=body, more=more))
    return f"{name}.py"


def found(machine: Machine, name: str, image: str, body: str, more: str = "") -> object:
    """Deploy it; what the function answers."""
    answer = machine.request(machine.deploy(write(machine, name, image, body, more))["f"])
    assert answer.status == 200, answer
    return answer.json


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny package, in two versions."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        info = f"tinybird-{version}.dist-info"
        with zipfile.ZipFile(folder / f"tinybird-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tinybird/__init__.py", f"song = 'tweet {version}'\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinybird\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", f"tinybird/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
    return folder


@pytest.fixture(scope="module")
def offline(wheels: Path) -> str:
    """Options of pip_install that know only the tiny package."""
    return f"find_links={str(wheels)!r}, extra_options='--no-index'"


# -- packages ---------------------------------------------------------------------------------------------------------
def test_pip_install_makes_a_package_importable(shared: Machine, offline: str) -> None:
    """Inside the function, and there only."""
    image = f"modal.Image.debian_slim().pip_install('tinybird==1.0', {offline})"
    assert found(shared, "pip", image, "import tinybird; return tinybird.song") == "tweet 1.0"


def test_imports_are_made_in_the_container_and_forgiven_outside(shared: Machine, offline: str) -> None:
    """`with image.imports()` on top of the file."""
    image = f"modal.Image.debian_slim().uv_pip_install('tinybird==2.0', {offline})"
    image += "\n\nwith image.imports():\n    import tinybird"
    assert found(shared, "imports", image, "return tinybird.song") == "tweet 2.0"


def test_a_requirements_file(shared: Machine, offline: str) -> None:
    """Of the user's project."""
    shared.write("requirements.txt", "tinybird<2  # not the new one\n")
    image = f"modal.Image.debian_slim().pip_install_from_requirements('requirements.txt', {offline})"
    assert found(shared, "requirements", image, "import tinybird; return tinybird.song") == "tweet 1.0"


def test_a_failing_pip_install_fails_the_deploy_with_uvs_words(shared: Machine, offline: str) -> None:
    """And nothing is deployed."""
    image = f"modal.Image.debian_slim().pip_install('no-such-bird', {offline})"
    done = shared.run("deploy", write(shared, "failing", image, "return 1"), code=1)
    assert "no-such-bird was not found" in done.stderr
    assert "pip_install(no-such-bird) failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "failing" not in shared.run("app", "list").stdout


def test_a_second_deploy_does_not_build_again(shared: Machine, offline: str) -> None:
    """The code has changed, the image has not."""
    image = f"modal.Image.debian_slim().pip_install('tinybird==1.0', {offline}).run_commands('echo building >&2')"
    first = shared.run("deploy", write(shared, "twice", image, "return 1"))
    assert "Built the image" in first.stderr
    assert "building" in first.stderr
    second = shared.run("deploy", write(shared, "twice", image, "return 2"))
    assert "Buil" not in second.stderr
    assert "building" not in second.stderr
    assert shared.app("twice")["version"] == 2


# -- settings ---------------------------------------------------------------------------------------------------------
def test_the_images_environment_then_the_secrets_then_env(shared: Machine) -> None:
    """Later ones win."""
    image = "modal.Image.debian_slim().env({'A': 'image', 'B': 'image', 'C': 'image'})"
    more = ", secrets=[modal.Secret.from_dict({'B': 'secret', 'C': 'secret'})], env={'C': 'env'}"
    body = "return [os.environ[name] for name in 'ABC']"
    assert found(shared, "variables", image, body, more) == ["image", "secret", "env"]


def test_run_commands_run_in_the_images_environment(shared: Machine) -> None:
    """With its variables and its Python."""
    shared.write("make.py", MAKE)
    image = f"modal.Image.debian_slim().env({{'BIRD': 'robin'}}).run_commands('python {shared.folder}/make.py')"
    assert found(shared, "commands", image, "import made; return made.bird") == "robin"


def test_a_command_that_fails_fails_the_deploy(shared: Machine) -> None:
    """With what it said, and its exit code."""
    image = "modal.Image.debian_slim().run_commands('echo the nest is empty; exit 7')"
    done = shared.run("deploy", write(shared, "nest", image, "return 1"), code=1)
    assert "the nest is empty" in done.stderr
    assert "exit code 7" in done.stderr


def test_the_working_folder(shared: Machine, tmp_path: Path) -> None:
    """Where the function begins."""
    image = f"modal.Image.debian_slim().workdir({str(tmp_path)!r})"
    assert found(shared, "workdir", image, "return os.getcwd()") == str(tmp_path)


def test_another_python(shared: Machine, tmp_path: Path) -> None:
    """One that is installed here; the server's own where there is no other."""
    installed = {python.minor for python in asyncio.run(Interpreters(tmp_path).installed())}
    fitting = {version for version in installed if tuple(map(int, version.split("."))) >= OLDEST_PYTHON}
    version = min(fitting - {own_version()}, default=own_version())
    image = f"modal.Image.debian_slim(python_version={version!r})"
    assert found(shared, "python", image, "return '.'.join(map(str, sys.version_info[:2]))") == version


# -- local files ------------------------------------------------------------------------------------------------------
def test_local_files_and_folders_are_added(shared: Machine) -> None:
    """At their places, without what is ignored."""
    shared.write("local/one.txt", "1")
    shared.write("data/deep/two.txt", "2")
    shared.write("data/left.out", "-")
    image = "modal.Image.debian_slim().add_local_file('local/one.txt', '/root/')"
    image += ".add_local_dir('data', '/root/data', ignore=['*.out'])"
    body = "return [Path('one.txt').read_text(), Path('data/deep/two.txt').read_text(), Path('data/left.out').exists()]"
    assert found(shared, "files", image, body) == ["1", "2", False]


def test_local_python_source_is_importable(shared: Machine) -> None:
    """A package that the file itself does not import."""
    shared.write("birds/__init__.py", "from birds.song import sing\n")
    shared.write("birds/song.py", "def sing():\n    return 'chirp'\n")
    image = "modal.Image.debian_slim().add_local_python_source('birds')"
    assert found(shared, "source", image, "import birds; return birds.sing()") == "chirp"


# -- what cannot be ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("builder", "image"),
    [
        ("apt_install", "modal.Image.debian_slim().apt_install('curl')"),
        ("from_registry", "modal.Image.from_registry('python:3.12')"),
        ("from_dockerfile", "modal.Image.from_dockerfile('Dockerfile')"),
        ("micromamba", "modal.Image.micromamba()"),
        ("dockerfile_commands", "modal.Image.debian_slim().dockerfile_commands('RUN true')"),
    ],
)
def test_a_builder_that_needs_a_root_filesystem_fails_the_deploy_and_says_so(
    shared: Machine, builder: str, image: str
) -> None:
    """By its name, with a way out."""
    done = shared.run("deploy", write(shared, "rooted", image, "return 1"), code=1)
    assert builder in done.stderr
    assert "root filesystem" in done.stderr
    assert "pip_install" in done.stderr
    assert "Traceback" not in done.stderr
