"""`portico serve` in a process of its own: the real reader, the real watcher, a stub of the server."""

from __future__ import annotations

import os
import signal

URL = "http://acme--seed-square-dev.localhost:0"


def calls(command, portico, settings) -> list[str]:
    """What the server was asked about the code, after both have ended."""
    command.interrupt()
    command.end()
    assert portico("down").end() == 0
    asked = (settings.home / "calls").read_text().split("\n")
    return [call for call in asked if call in ("hold", "release", "reload")]


def test_urls_and_logs(stub, portico):
    """Stdout has each URL on a line of its own, then the containers' lines; the rest is on stderr."""
    command = portico("serve", "seed.py")
    command.wait_for("hello from inside")
    command.interrupt()
    assert command.end() == 0
    assert command.out == [URL, "[square] hello from inside"]
    assert "Serving seed; Ctrl-C ends it." in command.err


def test_ctrl_c_stops_the_app(stub, portico, settings):
    """When the command has ended, so has its app."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    assert [app.state for app in stub.apps()] == ["ephemeral"]
    command.interrupt()
    assert command.end() == 0
    assert stub.apps() == []


def test_sigterm_is_a_clean_end(stub, portico):
    """So it is for SIGTERM, as service managers send it."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0
    assert stub.apps() == []


def test_timeout_is_a_clean_end(stub, portico):
    """--timeout ends it like Ctrl-C."""
    command = portico("serve", "seed.py", "--timeout", "0.2")
    assert command.end() == 0
    assert stub.apps() == []


def test_a_file_with_an_error_is_1(stub, portico, project):
    """The traceback of the user's file, and nothing is served."""
    (project / "seed.py").write_text("import modal\nimport nonsense_that_is_not_there\n")
    command = portico("serve", "seed.py")
    assert command.end() == 1
    assert command.out == []
    assert any("nonsense_that_is_not_there" in line for line in command.err)


def test_a_server_that_goes_away_is_1(stub, portico):
    """The command says so, and does not hang."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    os.kill(stub.server().pid, signal.SIGKILL)
    assert command.end() == 1
    assert "Error: The server has gone away." in command.err


def test_an_app_that_is_stopped_elsewhere(stub, portico):
    """`app stop` ends the one who serves, too, and that is no failure of it."""
    command = portico("serve", "seed.py")
    command.wait_for("hello from inside")
    assert portico("app", "stop", "seed", "--yes").end() == 0
    assert command.end() == 0
    assert "The app was stopped." in command.err


def test_reload(stub, portico, project, settings):
    """A save is answered by hold and reload, and the file is named."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    file = project / "seed.py"
    file.write_text(file.read_text().replace("x**2", "x**3"))
    command.wait_for("seed.py changed; reloading")
    command.wait_for("Reloaded in")
    assert calls(command, portico, settings) == ["hold", "reload"]


def test_reload_shows_new_urls(stub, portico, project):
    """A function that was added gets its line."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    file = project / "seed.py"
    file.write_text(
        file.read_text() + "\n\n@app.function()\n@modal.fastapi_endpoint()\ndef cube(x: int):\n    return x\n"
    )
    command.wait_for("http://acme--seed-cube-dev.localhost:0")


def test_reload_of_a_broken_file(stub, portico, project, settings):
    """The traceback is shown, the file named, the app let go on; the repaired file is taken."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    file = project / "seed.py"
    good = file.read_text()
    file.write_text(good + "\n1/0\n")
    command.wait_for("Error: seed.py: ZeroDivisionError")
    command.wait_for("seed.py changed; the last good version stays up.")
    file.write_text(good + "\nx = 1\n")
    command.wait_for("Reloaded in")
    assert calls(command, portico, settings) == ["hold", "release", "hold", "reload"]


def test_an_endless_loop_can_be_mended(stub, portico, project):
    """A file that never stops running is read again when it changes, and nobody has to wait for its end."""
    command = portico("serve", "seed.py")
    command.wait_for(URL)
    file, begun = project / "seed.py", project / "begun"
    good = file.read_text()
    os.mkfifo(begun)
    file.write_text(good + f"\nopen({str(begun)!r}, 'w').close()\nwhile True: pass\n")
    begun.read_text()  # returns when the file is being read
    file.write_text(good + "\nx = 1\n")
    command.wait_for("Reloaded in")


def test_no_reload(stub, portico, project, settings):
    """With --no-reload nothing is watched."""
    command = portico("serve", "seed.py", "--no-reload")
    command.wait_for(URL)
    file = project / "seed.py"
    file.write_text(file.read_text() + "\nx = 1\n")
    command.wait_for("hello from inside")
    assert calls(command, portico, settings) == []
