"""How a deploy comes along: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portico.cli.terminal import Terminal
from portico.wire.control import BuildLine, Event, FunctionState, ImageState, LogLine, Warned

if TYPE_CHECKING:
    from rich.live import Live
    from rich.tree import Tree

_REFRESH = 10  # times a second


class Progress:
    """Shows images, functions, warnings and containers' lines as their events come; other events are not its business.

    On a terminal the tree appears when an image has to be built; what is quick needs none.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._images: dict[str, ImageState] = {}
        self._functions: dict[str, FunctionState] = {}
        self._live: Live | None = None

    def show(self, event: Event) -> None:
        """Take notice of one event."""
        if isinstance(event, Warned):
            self._terminal.warn(event.message)
        elif isinstance(event, BuildLine):
            self._terminal.note(f"  {event.line}")
        elif isinstance(event, LogLine):
            self._terminal.log(event, beside=True)
        elif isinstance(event, ImageState):
            self._images[event.key] = event
            self._update(image_line(event))
        elif isinstance(event, FunctionState):
            self._functions[event.name] = event
            self._update(function_line(event))

    def close(self) -> None:
        """Leave the tree as it stands."""
        if self._live is not None:
            live, self._live = self._live, None
            self._terminal.put_above(None)
            live.stop()

    def _update(self, line: str | None) -> None:
        building = any(image.state == "building" for image in self._images.values())
        if self._terminal.live and building and self._live is None:
            self._open()
        if self._live is not None:
            self._live.update(self._tree(), refresh=True)
            if not building and all(state.state != "starting" for state in self._functions.values()):
                self.close()
        elif line is not None:
            self._terminal.note(line)

    def _open(self) -> None:
        from rich.console import Console  # rich takes 80 ms, which only a build hides
        from rich.live import Live
        from rich.text import Text

        console = Console(stderr=True)
        self._live = Live(self._tree(), console=console, refresh_per_second=_REFRESH, redirect_stdout=False)
        self._live.start()
        self._terminal.put_above(lambda text: console.print(Text.from_ansi(text), soft_wrap=True))

    def _tree(self) -> Tree:
        from rich.spinner import Spinner
        from rich.text import Text
        from rich.tree import Tree

        tree = Tree(Text("Building and starting"), guide_style="dim")
        for image in self._images.values():
            text = Text(f"image of {', '.join(image.functions)}: {image.state}{_seconds(image)}")
            tree.add(Spinner("dots", text) if image.state == "building" else Text(_mark(image.state)).append_text(text))
        for function in self._functions.values():
            text = Text(f"{function.name}: {function.state}{f' => {function.url}' if function.url else ''}")
            starting = function.state == "starting"
            tree.add(Spinner("dots", text) if starting else Text(_mark(function.state)).append_text(text))
        return tree


def image_line(event: ImageState) -> str | None:
    """What a plain terminal is told of an image; None for nothing."""
    users = ", ".join(event.functions)
    return {
        "building": f"Building the image of {users}",
        "built": f"Built the image of {users}{_seconds(event)}",
        "failed": f"The image of {users} could not be built",
    }.get(event.state)


def function_line(event: FunctionState) -> str | None:
    """What a plain terminal is told of a function; None for nothing."""
    return {"ready": f"{event.name} is ready", "failed": f"{event.name} could not start"}.get(event.state)


def _seconds(event: ImageState) -> str:
    return f" in {event.seconds:.1f} s" if event.state == "built" else ""


def _mark(state: str) -> str:
    return "✗ " if state == "failed" else "✓ "
