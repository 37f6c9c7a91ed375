"""What a process is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from portico.engines.container import describe
from portico.engines.launch import base_environment, container_environment, launch_document, template_command
from portico.model.ports import BuiltImage, ContainerStart
from portico.model.spec import EntrySpec, FunctionSpec
from portico.wire.container import View


def an_image(**more: object) -> BuiltImage:
    return BuiltImage(key="k1", python=Path("/venv/bin/python"), **more)  # type: ignore[arg-type]


def a_start(image: BuiltImage, env: dict[str, str] | None = None) -> ContainerStart:
    return ContainerStart(
        container_id="ct-1",
        app_id="ap-1",
        app_name="seed",
        version=1,
        ephemeral=False,
        environment="main",
        entry=EntrySpec(module="seed", path="seed.py"),
        function=FunctionSpec(name="square", module="seed", qualname="square", env=env or {}),
        image=image,
        bundle_dir=Path("/bundles/b1"),
    )


def test_a_template_is_told_its_folders_in_order() -> None:
    """The user's packages and the runtime's are kept apart."""
    image = an_image(site_packages=(Path("/u1"), Path("/u2")), runtime_path=(Path("/r1"),))
    command = template_command(image)
    assert command[0] == "/venv/bin/python"
    assert command[-6:] == ["--fd={fd}", "--path", "/u1", "/u2", "--runtime", "/r1"]


def test_little_of_the_servers_environment_is_handed_on() -> None:
    """The home and the temporary folder are; the rest is made, and the image has the last word."""
    own = {"HOME": "/home/u", "TMPDIR": "/t", "PATH": "/usr/bin", "TOKEN": "secret", "PYTHONDONTWRITEBYTECODE": "1"}
    assert base_environment(an_image(env={"LANG": "de_DE.UTF-8"}), own) == {
        "HOME": "/home/u",
        "PATH": "/venv/bin:/usr/bin",
        "LANG": "de_DE.UTF-8",
    }


def test_an_environment_of_its_own_is_named(tmp_path: Path) -> None:
    """VIRTUAL_ENV is set where the interpreter belongs to one."""
    (tmp_path / "pyvenv.cfg").touch()
    image = BuiltImage(key="k", python=tmp_path / "bin" / "python")
    assert base_environment(image, {})["VIRTUAL_ENV"] == str(tmp_path)


def test_the_users_variables_win() -> None:
    """Also over those that say where the code runs."""
    environment = container_environment({"A": "image", "B": "image"}, a_start(an_image(), {"A": "function"}))
    assert (environment["A"], environment["B"]) == ("function", "image")
    assert environment["MODAL_TASK_ID"] == environment["PORTICO_TASK_ID"] == "ct-1"
    assert environment["MODAL_IMAGE_ID"] == "im-k1"


@pytest.mark.parametrize(
    ("workdir", "expected"),
    [(None, "/bundles/b1/"), ("data", "/bundles/b1/data"), ("/srv/app", "/srv/app")],
)
def test_the_working_folder_is_the_bundle_or_what_the_image_says(workdir: str | None, expected: str) -> None:
    """A relative one is below the bundle."""
    assert launch_document(a_start(an_image(workdir=workdir)), "/s", View(folder="/c"), (), {}).workdir == expected


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit code 0"),
        (3 << 8, "exit code 3"),
        (9, "signal 9 (SIGKILL)"),
        (139, "signal 11 (SIGSEGV)"),
        (40, "signal 40"),
    ],
)
def test_an_end_is_put_in_words(status: int, words: str) -> None:
    """Exit codes and signals, with the signal's name where it has one."""
    assert describe(status) == words
