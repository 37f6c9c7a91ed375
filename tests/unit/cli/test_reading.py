"""The reader's client, with readers that behave and readers that do not."""

from __future__ import annotations

import os
import sys
import threading

import psutil
import pytest

from portico.cli.reading import Reader, to_error
from portico.model import errors
from portico.wire.reading import ReadReply, ReadRequest


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


ECHO = 'import sys\nfor line in sys.stdin: print(\'{"output": "x"}\', flush=True)'


def test_real_reader(tmp_path):
    """A file is read, twice, by one process, and its app comes back."""
    (tmp_path / "a.py").write_text("import modal\napp = modal.App('one')\n")
    request = ReadRequest(ref="a.py", cwd=str(tmp_path))
    with Reader() as reader:
        first = reader.read(request)
        (tmp_path / "a.py").write_text("import modal\napp = modal.App('two')\n")
        second = reader.read(request)
    assert first.spec is not None
    assert second.spec is not None
    assert (first.spec.name, second.spec.name) == ("one", "two")


def test_reader_that_dies_is_replaced():
    """The failure is told once; the next request has a new process."""
    with Reader(script("import sys; sys.stdin.readline(); sys.exit(3)")) as reader:
        for _ in range(2):
            with pytest.raises(errors.InternalFailure, match="ended with code 3"):
                reader.read(ReadRequest(ref="a.py", cwd="/"))


def test_reader_that_hangs():
    """A reading has an end where a time is given, and the process that hung is gone."""
    with Reader(script("import time; time.sleep(1000)")) as reader:
        process = reader._process
        with pytest.raises(errors.TimeoutError, match=r"longer than 0\.2 s"):
            reader.read(ReadRequest(ref="a.py", cwd="/"), timeout=0.2)
        assert process is not None
        assert process.returncode is not None


def test_reader_that_talks_nonsense():
    """An answer that is none is an error of ours."""
    with (
        Reader(script("import sys; sys.stdin.readline(); print('hello', flush=True)")) as reader,
        pytest.raises(errors.InternalFailure, match="makes no sense"),
    ):
        reader.read(ReadRequest(ref="a.py", cwd="/"))


def test_a_newer_request_takes_the_place_of_an_older(tmp_path):
    """An endless loop in the file is left as soon as the file is asked for again."""
    file = tmp_path / "a.py"
    file.write_text("while True: pass\n")
    request = ReadRequest(ref="a.py", cwd=str(tmp_path))
    with Reader() as reader:
        reader.ask(request)
        answers: list[ReadReply] = []
        thread = threading.Thread(target=lambda: answers.append(reader.answer(60)))
        thread.start()
        file.write_text("import modal\napp = modal.App('mended')\n")
        reader.supersede(request)
        thread.join()
    assert answers[0].spec is not None
    assert answers[0].spec.name == "mended"


def test_the_readers_forks_end_with_it():
    """What it has started dies with it, also when it ignores everything."""
    code = (
        "import os, signal, sys, time\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)\n"
        "sys.stdin.readline(); print('{}', flush=True); time.sleep(1000)"
    )
    with Reader(script(code)) as reader:
        reader.read(ReadRequest(ref="a.py", cwd="/"))
        assert reader._process is not None
        (fork,) = psutil.Process(reader._process.pid).children()
    fork.wait(20)


def test_compiled_files_may_be_kept(monkeypatch):
    """A shell's PYTHONDONTWRITEBYTECODE does not reach it."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import os, sys, json; sys.stdin.readline(); print(json.dumps({'output': str(os.environ)}), flush=True)"
    with Reader(script(code)) as reader:
        assert "PYTHONDONTWRITEBYTECODE" not in reader.read(ReadRequest(ref="a.py", cwd="/")).output


def test_answers_of_one_reader_in_order():
    """A reader that is asked from one thread and answered in another keeps its lines whole."""
    with Reader(script(ECHO)) as reader:
        reader.ask(ReadRequest(ref="a.py", cwd="/"))
        answers: list[ReadReply] = []
        thread = threading.Thread(target=lambda: answers.append(reader.answer(20)))
        thread.start()
        thread.join()
    assert answers[0].output == "x"


def test_the_file_at_fault_is_named(monkeypatch, tmp_path):
    """Once: where the message does not name it already."""
    monkeypatch.chdir(tmp_path)
    file = os.path.join(tmp_path, "pkg", "a.py")
    named = to_error(ReadReply(error="ZeroDivisionError: oh", error_file=file, traceback="t", error_hint="h"))
    assert (named.message, named.hint, named.detail) == ("pkg/a.py: ZeroDivisionError: oh", "h", "t")
    assert (
        to_error(ReadReply(error="bad syntax (a.py, line 1)", error_file=file)).message == "bad syntax (a.py, line 1)"
    )
