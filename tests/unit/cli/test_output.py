"""What is written where."""

from __future__ import annotations

import io

from portico.cli.deploy import report, summary
from portico.cli.progress import Progress
from portico.cli.resolving import advice, resolves
from portico.cli.terminal import Terminal, table
from portico.model import errors
from portico.wire.control import (
    BuildLine,
    Deployed,
    EndpointInfo,
    FunctionState,
    ImageState,
    LogLine,
    Warned,
)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def plain() -> tuple[Terminal, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Terminal(out, err, {}), out, err


def line(text: str, source: str = "stdout") -> LogLine:
    return LogLine(at=0.0, function="square", container_id="ct-1", source=source, line=text)


DEPLOYED = Deployed(
    app_id="ap-1",
    app="seed",
    version=3,
    endpoints=[EndpointInfo(function="square", url="http://acme--seed-square.localhost:7777")],
    seconds=1.2344,
)


def test_error_order():
    """Detail above, then the message, then the hint; all of it on stderr."""
    terminal, out, err = plain()
    terminal.error(errors.StartError("square did not start", hint="look", detail="Traceback\n"))
    assert (out.getvalue(), err.getvalue()) == ("", "Traceback\nError: square did not start\nHint: look\n")


def test_warnings_are_said_once():
    """The same text again is silence."""
    terminal, _, err = plain()
    terminal.warn("no GPU")
    terminal.warn("no GPU")
    assert err.getvalue() == "Warning: no GPU\n"


def test_log_lines():
    """The function, then the line; the time where it is asked for; colours on a terminal only."""
    terminal, out, _ = plain()
    terminal.log(line("hello"))
    assert out.getvalue() == "[square] hello\n"
    terminal.log(line("hello"), timestamps=True)
    assert out.getvalue().splitlines()[1].endswith(" [square] hello")
    screen = Screen()
    Terminal(screen, screen, {"TERM": "xterm"}).log(line("hello", "stderr"))
    assert screen.getvalue() == "\x1b[33m[square]\x1b[0m hello\n"


def test_no_colour_where_it_is_not_wanted():
    """NO_COLOR, CI and dumb terminals get plain text and no live display."""
    for environ in ({"NO_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}):
        terminal = Terminal(Screen(), Screen(), environ)
        assert not terminal.colour
        assert not terminal.live


def test_plain_progress():
    """Builds and functions are lines on stderr; a cached image is none."""
    terminal, out, err = plain()
    progress = Progress(terminal)
    for event in (
        ImageState(key="k", state="cached", functions=["cube"]),
        ImageState(key="j", state="building", functions=["hello", "square"]),
        BuildLine(key="j", line="+ fastapi==0.1"),
        ImageState(key="j", state="built", functions=["hello", "square"], seconds=2.34),
        FunctionState(name="square", state="starting"),
        FunctionState(name="square", state="ready"),
        FunctionState(name="cube", state="failed"),
        Warned("careful"),
    ):
        progress.show(event)
    progress.close()
    assert out.getvalue() == ""
    assert err.getvalue().splitlines() == [
        "Building the image of hello, square",
        "  + fastapi==0.1",
        "Built the image of hello, square in 2.3 s",
        "square is ready",
        "cube could not start",
        "Warning: careful",
    ]


def test_live_progress(capsys, monkeypatch):
    """On a terminal a tree stands below the build log, and stays when all is done."""
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    terminal = Terminal(io.StringIO(), screen, {"TERM": "xterm"})
    progress = Progress(terminal)
    progress.show(ImageState(key="j", state="building", functions=["square"]))
    progress.show(BuildLine(key="j", line="+ fastapi==0.1"))
    progress.show(FunctionState(name="square", state="starting"))
    progress.show(ImageState(key="j", state="built", functions=["square"], seconds=1.0))
    progress.show(FunctionState(name="square", state="ready", url="http://x"))
    terminal.note("after")
    text = screen.getvalue()
    assert "+ fastapi==0.1" in text
    assert "image of square: built in 1.0 s" in text
    assert "square: ready => http://x" in text
    assert text.endswith("after\n")


def test_deploy_json_keys():
    """The keys that scripts read, in their order."""
    assert list(summary(DEPLOYED)) == ["app", "version", "endpoints", "unchanged"]
    (endpoint,) = DEPLOYED.endpoints
    assert summary(DEPLOYED)["endpoints"] == [
        {"function": "square", "url": endpoint.url, "protected": False, "custom_urls": []}
    ]


def test_deploy_report():
    """Each endpoint, then the time it took; or that there was nothing to do."""
    assert report(DEPLOYED).splitlines() == [
        "Created web function square => http://acme--seed-square.localhost:7777",
        "✓ App deployed in 1.234s!",
    ]
    unchanged = Deployed(app_id="a", app="seed", version=3, endpoints=[], unchanged=True)
    assert report(unchanged) == "✓ App seed is unchanged (version 3)."


def test_table():
    """Columns line up, without blanks at the end."""
    assert table(["A", "BB"], [["xxx", "y"]]) == "A    BB\nxxx  y"


def test_names_that_resolve():
    """An address counts as one on which the server listens."""
    assert resolves("127.0.0.1", "127.0.0.1")
    assert resolves("127.0.0.1", "0.0.0.0")
    assert not resolves("127.0.0.1", "127.0.0.2")
    assert not resolves("name.invalid", "127.0.0.1")


def test_advice_has_a_curl_line_that_works():
    """It names host, port and address, so that no resolver is asked."""
    text = advice("http://a--b.localhost:7777", "127.0.0.1")
    assert "curl --resolve a--b.localhost:7777:127.0.0.1 http://a--b.localhost:7777" in text
    assert "[::1]" in advice("http://a--b.localhost", "::1")


def test_deployed_domains():
    """A line for each, below its function's, with the key where the function has one."""
    urls = ["http://api.example.com:7777", "http://*.example.com:7777"]
    endpoint = EndpointInfo(function="square", url="http://here", protected=True, custom_urls=urls)
    deployed = Deployed(app_id="ap-1", app="seed", version=1, endpoints=[endpoint])
    assert report(deployed).splitlines()[:3] == [
        "Created web function square => http://here 🔑",
        "Custom domain for square => http://api.example.com:7777 🔑",
        "Custom domain for square => http://*.example.com:7777 🔑",
    ]
    assert summary(deployed)["endpoints"][0]["custom_urls"] == urls
