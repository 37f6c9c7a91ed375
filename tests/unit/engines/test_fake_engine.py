"""The double, where a test takes it by the hand. What it does by itself is in the engines' contract tests."""

from __future__ import annotations

from pathlib import Path

from portico.engines.fake import FakeEngine
from portico.model.ports import BuiltImage, Container, ContainerStart, StartFailure
from portico.model.spec import EntrySpec, FunctionSpec

IMAGE = BuiltImage(key="k", python=Path("/venv/bin/python"))
START = ContainerStart(
    container_id="ct-1",
    app_id="ap-1",
    app_name="seed",
    version=1,
    ephemeral=False,
    environment="main",
    entry=EntrySpec(module="seed", path="seed.py"),
    function=FunctionSpec(name="square", module="seed", qualname="square"),
    image=IMAGE,
    bundle_dir=Path("/bundles/b1"),
)


class Seen(list[str]):
    """Events, as words."""

    def ready(self, container: Container) -> None:
        self.append("ready")

    def failed(self, container: Container, failure: StartFailure) -> None:
        self.append(f"failed: {failure.cause}")

    def finished(self, container: Container, input_id: str) -> None:
        self.append(f"finished {input_id}")

    def exited(self, container: Container, status: str) -> None:
        self.append(f"exited: {status}")


async def test_a_container_does_what_the_test_says(tmp_path: Path) -> None:
    """Each command is reported at once, and nothing after the exit."""
    engine, seen = FakeEngine(tmp_path, manual=True), Seen()
    container = engine.start(START, seen)
    assert (seen, engine.living) == ([], [container])
    await container.become_ready()
    container.finish("in-1")
    container.exit("exit code 3")
    container.finish("in-2")
    container.exit("exit code 4")
    assert seen == ["ready", "finished in-1", "exited: exit code 3"]
    assert engine.living == []


async def test_a_start_fails_when_the_test_says(tmp_path: Path) -> None:
    """A failure is followed by the exit."""
    engine, seen = FakeEngine(tmp_path, manual=True), Seen()
    engine.start(START, seen).fail(StartFailure("ImportError: no"))
    assert seen == ["failed: ImportError: no", "exited: exit code 1"]


async def test_what_was_asked_is_recorded(tmp_path: Path) -> None:
    """Stops, kills, cancels and warm-ups can be asserted."""
    engine = FakeEngine(tmp_path, manual=True)
    container = engine.start(START, Seen())
    await container.become_ready()
    container.cancel("in-1")
    container.stop(7.5)
    container.kill()
    await engine.warm(IMAGE)
    assert (container.cancelled, container.stopped, container.killed) == (["in-1"], 7.5, True)
    assert engine.warmed == ["k"]
