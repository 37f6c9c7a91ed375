"""What every builder of images must do, with uv and real environments. Packages are made here, so no network is needed
but for another Python's runtime."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from portico.images.build import UvImages
from portico.images.interpreters import Interpreters
from portico.images.plan import OLDEST_PYTHON, own_version
from portico.model.errors import ImageBuildError
from portico.model.ports import BuiltImage
from portico.model.spec import ImageSpec, ImageStep


def make_wheel(folder: Path, name: str, version: str, source: str) -> None:
    """A package of one module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", source)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def imported(image: BuiltImage, program: str) -> str:
    """What a program prints with the user's packages first and the runtime's last, as in a container."""
    before, after = map(str, image.site_packages), map(str, image.runtime_path)
    paths = f"import sys; sys.path[:] = {[*before]!r} + sys.path + {[*after]!r}\n"
    argv = [str(image.python), "-I", "-S", "-c", paths + program]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def quiet(_line: str) -> None:
    """A sink that nobody reads."""


@pytest.fixture
def pip(tmp_path: Path) -> Callable[..., ImageStep]:
    """Makes a `pip_install` that finds only the packages made here."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "tiny", "1.0", "word = 'one'\n")
    make_wheel(wheels, "tiny", "2.0", "word = 'two'\n")
    make_wheel(wheels, "annotated_doc", "0.0.1", "word = 'the user has this one'\n")

    def step(*packages: str) -> ImageStep:
        options = {"find_links": str(wheels), "extra_options": "--no-index"}
        return ImageStep(kind="pip_install", arguments=packages, options=options)

    return step


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def images(home: Path) -> UvImages:
    return UvImages(home)


def environments(home: Path) -> list[Path]:
    return [path.parent for path in home.glob("images/*/*/pyvenv.cfg")]


async def test_an_installed_package_can_be_imported(images: UvImages, pip: Callable[..., ImageStep]) -> None:
    """The build log comes line by line, and the package is there with its bytecode."""
    lines: list[str] = []
    image = await images.ensure(ImageSpec(steps=(pip("tiny==1.0"),)), lines.append)
    assert imported(image, "import tiny; print(tiny.word)") == "one"
    assert "=> pip_install(tiny==1.0)" in lines
    assert " + tiny==1.0" in lines
    assert list(image.site_packages[0].glob("tiny/__pycache__/*.pyc"))


async def test_steps_run_in_their_order(images: UvImages, pip: Callable[..., ImageStep]) -> None:
    """A later step wins over an earlier one."""
    image = await images.ensure(ImageSpec(steps=(pip("tiny==2.0"), pip("tiny==1.0"))), quiet)
    assert imported(image, "import tiny; print(tiny.word)") == "one"


async def test_a_requirements_file_is_installed(images: UvImages, pip: Callable[..., ImageStep]) -> None:
    """Its text travels in the step."""
    step = replace(pip(), kind="requirements", text="# ours\ntiny<2\n")
    image = await images.ensure(ImageSpec(steps=(step,)), quiet)
    assert imported(image, "import tiny; print(tiny.word)") == "one"


async def test_a_second_ensure_starts_no_process(
    images: UvImages, home: Path, pip: Callable[..., ImageStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is there costs a look at its manifest, for the server that built it and for the next one."""
    spec = ImageSpec(steps=(pip("tiny"),))
    built = await images.ensure(spec, quiet)
    monkeypatch.setattr(subprocess, "Popen", None)
    lines: list[str] = []
    assert await images.ensure(spec, lines.append) == built
    assert await UvImages(home).ensure(spec, lines.append) == built
    assert lines == []
    assert images.cached(spec)


async def test_images_with_the_same_steps_share_one_environment(
    images: UvImages, home: Path, pip: Callable[..., ImageStep]
) -> None:
    """Also when they differ in variables that are set at the end; those come with the image."""
    plain = await images.ensure(ImageSpec(steps=(pip("tiny"),)), quiet)
    setting = ImageStep(kind="env", options={"MODE": "x"})
    workdir = ImageStep(kind="workdir", arguments=("/srv",))
    other = await images.ensure(ImageSpec(steps=(pip("tiny"), setting, workdir)), quiet)
    assert other.python == plain.python
    assert len(environments(home)) == 1
    assert other.key != plain.key
    assert (plain.env, plain.workdir, other.env, other.workdir) == ({}, None, {"MODE": "x"}, "/srv")


async def test_who_asks_at_the_same_time_gets_the_same_build(
    images: UvImages, home: Path, pip: Callable[..., ImageStep]
) -> None:
    """One build, all of its lines for each of them."""
    spec = ImageSpec(steps=(pip("tiny"),))
    logs: list[list[str]] = [[], [], []]
    built = await asyncio.gather(*(images.ensure(spec, log.append) for log in logs))
    assert built[0] == built[1] == built[2]
    assert logs[0] == logs[1] == logs[2]
    assert logs[0].count("=> pip_install(tiny)") == 1
    assert len(environments(home)) == 1


async def test_two_servers_with_one_home_build_once(home: Path, pip: Callable[..., ImageStep]) -> None:
    """The second one waits for the first one's lock and takes what it made."""
    spec = ImageSpec(steps=(pip("tiny"),))
    one, two = await asyncio.gather(*(UvImages(home).ensure(spec, quiet) for _ in range(2)))
    assert one == two
    assert len(environments(home)) == 1


async def test_a_failing_install_has_uvs_own_words(images: UvImages, home: Path, pip: Callable[..., ImageStep]) -> None:
    """The message names the step, the detail says why, the log keeps it, and no environment stays."""
    with pytest.raises(ImageBuildError, match=r"^pip_install\(nosuchpkg\) failed") as caught:
        await images.ensure(ImageSpec(steps=(pip("nosuchpkg"),)), quiet)
    assert "\n" not in caught.value.message
    assert caught.value.detail is not None
    assert "nosuchpkg was not found" in caught.value.detail
    (log,) = home.glob("images/logs/*.log")
    assert "nosuchpkg was not found" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert environments(home) == []


async def test_a_failed_build_can_be_tried_again(
    images: UvImages, pip: Callable[..., ImageStep], tmp_path: Path
) -> None:
    """A package that appeared meanwhile is found: failures are not cached."""
    spec = ImageSpec(steps=(pip("late"),))
    with pytest.raises(ImageBuildError):
        await images.ensure(spec, quiet)
    make_wheel(tmp_path / "wheels", "late", "1.0", "word = 'better late'\n")
    assert imported(await images.ensure(spec, quiet), "import late; print(late.word)") == "better late"


async def test_commands_run_inside_the_environment(
    images: UvImages, home: Path, pip: Callable[..., ImageStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They see the venv's python, its pip, the image's variables and working folder, and what was installed before."""
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    for name in ("pip", "setuptools", "wheel", "packaging"):
        make_wheel(tmp_path / "wheels", name, "1.0", "")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    commands = (
        'python -c "import sys, tiny; print(sys.prefix, tiny.word)"',
        "echo $WORD $PWD $VIRTUAL_ENV",
        "echo made > made.txt",
    )
    steps = (
        pip("tiny==2.0"),
        ImageStep(kind="env", options={"WORD": "hello"}),
        ImageStep(kind="workdir", arguments=(str(tmp_path),)),
        ImageStep(kind="run_commands", arguments=commands),
    )
    lines: list[str] = []
    await images.ensure(ImageSpec(steps=steps), lines.append)
    (environment,) = environments(home)
    assert f"{environment} two" in lines
    assert f"hello {tmp_path} {environment}" in lines
    assert (tmp_path / "made.txt").read_text() == "made\n"


async def test_a_failing_command_is_named(
    images: UvImages, tmp_path: Path, pip: Callable[..., ImageStep], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the line that failed, its exit code and its output; later lines do not run."""
    monkeypatch.setattr("portico.images.build.venv_command", lambda *_, **__: ["true"])
    step = ImageStep(kind="run_commands", arguments=("echo fine", "echo oh no; exit 7", f"touch {tmp_path}/later"))
    with pytest.raises(ImageBuildError, match=r"^run_commands\(echo oh no; exit 7\) failed .*exit code 7") as caught:
        await images.ensure(ImageSpec(steps=(step,)), quiet)
    assert caught.value.detail == "oh no"
    assert not (tmp_path / "later").exists()


@pytest.fixture
async def hanging_index() -> AsyncIterator[tuple[ImageSpec, asyncio.Queue[asyncio.StreamReader]]]:
    """An image whose package index never answers, and the connections that come to it."""
    connections: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()

    async def connected(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        writers.append(_writer)
        await connections.put(reader)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = {"index_url": f"http://127.0.0.1:{port}/simple"}
    yield ImageSpec(steps=(ImageStep(kind="pip_install", arguments=("tiny",), options=options),)), connections
    server.close()
    for writer in writers:
        writer.close()


async def test_a_cancelled_build_ends_its_processes_and_cleans_up(
    images: UvImages, home: Path, hanging_index: tuple[ImageSpec, asyncio.Queue[asyncio.StreamReader]]
) -> None:
    """uv's connection to the index is closed by its end, and no environment stays."""
    spec, connections = hanging_index
    task = asyncio.create_task(images.ensure(spec, quiet))
    index = await connections.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await index.read()  # ends when uv does
    assert environments(home) == []


async def test_a_build_goes_on_for_those_who_still_wait(
    images: UvImages, hanging_index: tuple[ImageSpec, asyncio.Queue[asyncio.StreamReader]]
) -> None:
    """One of two askers leaves: the other one's build is not touched."""
    spec, connections = hanging_index
    first = asyncio.create_task(images.ensure(spec, quiet))
    await connections.get()
    lines: list[str] = []
    second = asyncio.create_task(images.ensure(spec, lines.append))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not second.done()
    assert "=> pip_install(tiny)" in lines
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


BUILDER = """
import asyncio, sys
from pathlib import Path
import msgspec
from portico.images.build import UvImages
from portico.model.spec import ImageSpec

spec = msgspec.json.decode(sys.argv[2], type=ImageSpec)
asyncio.run(UvImages(Path(sys.argv[1])).ensure(spec, print))
"""


async def test_a_killed_server_leaves_no_image_and_sweeping_clears_the_rest(
    images: UvImages, home: Path, hanging_index: tuple[ImageSpec, asyncio.Queue[asyncio.StreamReader]]
) -> None:
    """SIGKILL in the middle of a build: it does not count, and the next start removes it."""
    import msgspec

    spec, connections = hanging_index
    argv = [sys.executable, "-c", BUILDER, str(home), msgspec.json.encode(spec).decode()]
    server = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.DEVNULL)
    index = await connections.get()
    server.send_signal(signal.SIGKILL)
    await server.wait()
    for group in _groups_of_uv(home):
        os.killpg(group, signal.SIGKILL)
    await index.read()  # ends when uv does
    assert len(environments(home)) == 1
    assert not images.cached(spec)
    await images.sweep()
    assert environments(home) == []


async def test_a_forced_build_leaves_the_old_one_until_the_next_start(
    images: UvImages, home: Path, pip: Callable[..., ImageStep]
) -> None:
    """Containers run from the old environment; the new one is another image to the engine."""
    spec = ImageSpec(steps=(pip("tiny"),))
    old = await images.ensure(spec, quiet)
    new = await images.ensure(replace(spec, force_build=True), quiet)
    assert new.key != old.key
    assert new.python != old.python
    assert imported(old, "import tiny; print(tiny.word)") == "two"
    assert await images.ensure(spec, quiet) == new
    await images.sweep()
    assert not old.python.exists()
    assert await images.ensure(spec, quiet) == new


async def test_an_image_whose_python_is_gone_is_built_again(images: UvImages, pip: Callable[..., ImageStep]) -> None:
    """Somebody removed that Python from the machine: the link in the environment dangles."""
    spec = ImageSpec(steps=(pip("tiny"),))
    image = await images.ensure(spec, quiet)
    image.python.unlink()
    image.python.symlink_to("/nowhere/python")
    again = await images.ensure(spec, quiet)
    assert imported(again, "import tiny; print(tiny.word)") == "two"


async def test_the_users_version_wins_over_the_runtimes(images: UvImages, pip: Callable[..., ImageStep]) -> None:
    """What the runtime needs too is taken from the user's packages where they have it."""
    image = await images.ensure(ImageSpec(steps=(pip("annotated-doc"),)), quiet)
    assert imported(image, "import annotated_doc; print(annotated_doc.word)") == "the user has this one"
    version = "from importlib.metadata import version; print(version('annotated-doc'))"
    assert imported(image, version) == "0.0.1"


async def test_an_image_without_steps_has_the_runtime_and_no_more(images: UvImages) -> None:
    """`@app.function()` without an image finds FastAPI, and nothing of the server's own packages."""
    image = await images.ensure(ImageSpec(), quiet)
    program = (
        "import fastapi\nfrom importlib.util import find_spec\n"
        "print([name for name in ('sqlalchemy', 'alembic', 'rich', 'uv', 'pytest') if find_spec(name)])"
    )
    assert imported(image, program) == "[]"


async def test_another_python_has_the_runtime_too(images: UvImages, tmp_path: Path) -> None:
    """An image for another installed Python runs it, with the runtime made for it (else the own one)."""
    installed = [python.minor for python in await Interpreters(tmp_path).installed()]
    others = [v for v in installed if v != own_version() and tuple(map(int, v.split("."))) >= OLDEST_PYTHON]
    wanted = others[-1] if others else own_version()
    image = await images.ensure(ImageSpec(python_version=wanted), quiet)
    program = "import json, sys, fastapi, uvloop, msgspec; print(json.dumps('%d.%d' % sys.version_info[:2]))"
    assert json.loads(imported(image, program)) == wanted


def _groups_of_uv(home: Path) -> list[int]:
    """The process groups of the builds that work in this home: a killed server cannot end them itself."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(home).encode() in (place / "cmdline").read_bytes() and os.getpgid(int(place.name)) == int(
                place.name
            ):
                found.append(int(place.name))
        except OSError:
            continue
    return [group for group in found if group != os.getpgid(0)]
