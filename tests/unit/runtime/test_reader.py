"""The reader as it runs: a process that is asked on its stdin and answers on its stdout."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from portico.wire import reading
from portico.wire.reading import ReadRequest

APP = "import modal\napp = modal.App('seed')\n"
SQUARE = APP + "@app.function()\n@modal.fastapi_endpoint()\ndef square(x: int): return x * x\n"


class Process:
    """A reader and the project that it reads."""

    def __init__(self, root, **environment):
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "portico.runtime.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=root,
            env=os.environ | environment,
        )

    def write(self, text, name="app.py"):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def ask(self, ref="app.py", **options):
        self.process.stdin.write(reading.encode(ReadRequest(ref=ref, cwd=str(self.root), **options)))

    def answer(self):
        return reading.reply(self.process.stdout.readline())

    def read(self, ref="app.py", **options):
        self.ask(ref, **options)
        return self.answer()

    def read_text(self, text):
        self.write(text)
        return self.read()

    def close(self):
        self.process.stdin.close()
        code = self.process.wait(30)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One reader for the tests that leave it as it was."""
    process = Process(tmp_path_factory.mktemp("project"))
    yield process
    assert process.close() == 0


@pytest.fixture
def reader(tmp_path):
    """A reader of one test."""
    process = Process(tmp_path)
    yield process
    with contextlib.suppress(BrokenPipeError):
        process.close()


def test_a_file(shared):
    """The specification, the sources and what to watch."""
    path = shared.write(SQUARE)
    reply = shared.read()
    assert reply.error is None
    assert (reply.spec.name, reply.spec.entry.module, reply.spec.entry.path) == ("seed", "app", "app.py")
    assert [function.name for function in reply.spec.web_functions] == ["square"]
    assert reply.sources["app.py"] == str(path)
    assert reply.watch == [str(shared.root)]


def test_an_edit_is_seen(shared):
    """A second read has the new text, though it has the same size and comes in the same second."""
    names = []
    for name in ("aaa", "bbb"):
        shared.write(f"NAME = '{name}'\n", "naming.py")
        names.append(shared.read_text("import modal\nfrom naming import NAME\napp = modal.App(NAME)\n").spec.name)
    assert names == ["aaa", "bbb"]


def test_siblings(shared):
    """Modules and packages next to the file are imported, and travel."""
    shared.write("X = 1\n", "near/__init__.py")
    shared.write("Y = 2\n", "beside.py")
    reply = shared.read_text("from near import X\nfrom beside import Y\n" + APP)
    assert reply.error is None
    assert {"near/__init__.py", "beside.py", "app.py"} <= set(reply.sources)


def test_what_the_file_prints(shared):
    """Output of the file does not disturb the answer; it is in it."""
    reply = shared.read_text(
        "import os, sys\nprint('by print')\nos.write(1, b'by write\\n')\nprint('to stderr', file=sys.stderr)\n" + APP
    )
    assert reply.error is None
    assert reply.output == "by print\nby write\nto stderr\n"


def test_syntax_error(shared):
    """A syntax error names the file and the line."""
    path = shared.write("def f(:\n", "broken.py")
    reply = shared.read_text("import broken\n")
    assert reply.error.startswith("SyntaxError: invalid syntax (broken.py, line 1)")
    assert (reply.error_kind, reply.error_file) == ("user", str(path))
    assert "def f(:" in reply.traceback
    assert reply.watch == [str(shared.root)]


def test_import_error(shared):
    """A module that is not there is named, with the ways to import what only the image has."""
    reply = shared.read_text("import no_such_module\n")
    assert reply.error == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "image.imports()" in reply.error_hint
    assert "import no_such_module" in reply.traceback
    assert "importlib" not in reply.traceback


def test_what_the_sdk_refuses(shared):
    """An error of ours comes as its message and hint, and points to the user's line."""
    reply = shared.read_text(APP + "@modal.fastapi_endpoint()\n@app.function()\ndef f(): ...\n")
    assert reply.error == "Cannot stack `@modal.fastapi_endpoint` on top of `@app.function`."
    assert "swap the order" in reply.error_hint
    assert "line 3" in reply.traceback
    assert "partial.py" not in reply.traceback


@pytest.mark.parametrize(
    ("text", "message", "kind"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero", "user"),
        ("import sys\nsys.exit(3)\n", "app.py ends the program while it is read: sys.exit(3)", "user"),
        ("def f(): f()\nf()\n", "RecursionError: maximum recursion depth exceeded", "user"),
        ("import os\nos._exit(3)\n", "The process that read app.py was ended with exit code 3.", "user"),
        ("import os\nos.kill(os.getpid(), 11)\n", "The process that read app.py was ended by signal 11", "user"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt", "user"),
        ("import modal\n", "app.py has no app.", "usage"),
        ("import modal\na = modal.App('a')\nb = modal.App('b')\n", "app.py has 2 apps: a, b.", "usage"),
    ],
)
def test_files_that_cannot_be_read(shared, text, message, kind):
    """Each way to fail is an answer with a clear message, and the next file is read as if nothing had been."""
    reply = shared.read_text(text)
    assert reply.error.startswith(message)
    assert (reply.error_kind, reply.spec) == (kind, None)
    assert reply.watch == [str(shared.root)]
    assert shared.read_text(SQUARE).error is None


def test_output_of_a_file_that_ends_the_process(shared):
    """What a file said before it ended its process is in the answer."""
    reply = shared.read_text("import os\nprint('last words')\nos._exit(1)\n")
    assert reply.output == "last words\n"


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("none.py", "No such file: none.py"),
        (".", ". is a folder"),
        ("text.txt", "text.txt is not a Python file"),
        ("::app", "No file is named"),
        ("app.py::other", "app.py has no app named 'other'"),
    ],
)
def test_references_that_mean_nothing(shared, ref, message):
    """What the user typed wrongly is a usage error that repeats it."""
    shared.write(SQUARE)
    shared.write("", "text.txt")
    reply = shared.read(ref)
    assert reply.error.startswith(message)
    assert reply.error_kind == "usage"


def test_module(shared):
    """A module is read by its name, and its top-level package travels."""
    shared.write("", "packed/__init__.py")
    shared.write("NAME = 'packed'\n", "packed/naming.py")
    shared.write("from .naming import NAME\nimport modal\napp = modal.App(NAME)\n", "packed/web.py")
    reply = shared.read("packed.web", module=True)
    assert (reply.spec.name, reply.spec.entry.module, reply.spec.entry.path) == ("packed", "packed.web", None)
    assert sorted(reply.sources) == ["packed/__init__.py", "packed/naming.py", "packed/web.py"]
    assert reply.watch == [str(shared.root / "packed")]


def test_relative_import_in_a_script(shared):
    """A file of a package that is named as a script is told about -m."""
    reply = shared.read_text("from .x import y\n")
    assert "-m package.module" in reply.error_hint


@pytest.mark.parametrize("ref", ["no_such_module", "packed.none", "app.py", "json"])
def test_modules_that_are_not_there(shared, ref):
    """A module without a file of the user is a usage error."""
    shared.write("", "packed/__init__.py")
    reply = shared.read(ref, module=True)
    assert reply.error_kind == "usage"
    assert ref in reply.error


def test_named_app(shared):
    """One of two apps is named by its variable; a name from outside wins over the app's own."""
    shared.write("import modal\na = modal.App('one')\nb = modal.App('two')\n")
    assert shared.read("app.py::b").spec.name == "two"
    assert shared.read("app.py::b", name="other").spec.name == "other"
    assert shared.read("app.py::b", name="a b").error_kind == "usage"


def test_forgotten_app_function(shared):
    """A web decorator without `@app.function` is a warning."""
    reply = shared.read_text(APP + "@modal.fastapi_endpoint()\ndef lost(): ...\n")
    assert "'lost' has a web decorator but no `@app.function()`" in reply.spec.warnings[0]


def test_source_that_stays(shared):
    """With include_source=False only the entry travels."""
    reply = shared.read_text("import modal\napp = modal.App('x', include_source=False)\n" + SQUARE.partition("\n")[0])
    assert list(reply.sources) == ["app.py"]


def test_added_files(shared):
    """Files that an image adds are in the sources and are watched."""
    path = shared.write("x", "data/a.txt")
    reply = shared.read_text(
        APP + "image = modal.Image.debian_slim().add_local_dir('data', 'stuff')\n"
        "@app.function(image=image)\ndef f(): ...\n"
    )
    assert reply.sources["stuff/a.txt"] == str(path)
    assert str(path.parent) in reply.watch


def test_not_a_request(shared):
    """Nonsense is answered, and the reader lives on."""
    shared.process.stdin.write(b"nonsense\n")
    assert shared.answer().error.startswith("Not a request")
    assert shared.read_text(SQUARE).error is None


def test_later_request_takes_the_place(shared):
    """A request that comes while a file hangs ends that read; each request has its answer, in order."""
    started = shared.root / "started"
    os.mkfifo(started)
    shared.write(f"open({str(started)!r}, 'w').close()\nwhile True: pass\n", "hangs.py")
    shared.ask("hangs.py")
    with open(started):
        shared.write(SQUARE)
        shared.ask("app.py")
    first, second = shared.answer(), shared.answer()
    assert first.error_kind == "superseded"
    assert second.spec.name == "seed"
    started.unlink()


def hang(reader):
    """Let the reader read a file that never ends; the process that does it and one that it has started."""
    started = reader.root / "started"
    os.mkfifo(started)
    reader.write(
        f"""
        import os, subprocess
        other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with open({str(started)!r}, "w") as file: file.write(f"{{os.getpid()}} {{other.pid}}")
        while True: pass
        """
    )
    reader.ask()
    return [psutil.Process(int(pid)) for pid in started.read_text().split()]


def test_end_of_requests_ends_a_read(reader):
    """When nobody asks any more, a file that hangs is given up, with what it has started."""
    processes = hang(reader)
    assert reader.close() == 0
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_sigterm_ends_a_read(reader):
    """A reader that is told to end takes its read along."""
    processes = hang(reader)
    reader.process.send_signal(signal.SIGTERM)
    assert reader.process.wait(30) == 128 + signal.SIGTERM
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_killed_reader_leaves_no_read(reader):
    """A reader that is killed takes its read along."""
    process, other = hang(reader)
    reader.process.kill()
    assert psutil.wait_procs([process], timeout=10)[1] == []
    other.kill()


def test_import_that_starts_a_program(reader):
    """What a file starts while it is read, and leaves behind, has ended when the answer is there."""
    reader.write("import subprocess\np = subprocess.Popen(['sleep', '1000'])\nprint(p.pid)\n" + SQUARE)
    reply = reader.read()
    assert reply.error is None
    assert not psutil.pid_exists(int(reply.output))


def test_own_modules_are_never_imported_ahead(reader, monkeypatch):
    """Only installed modules are warm; an edit of the user's is seen after many reads too."""
    reader.write(
        "import colorsys, naming\nimport modal\napp = modal.App(naming.NAME)\nimport sys\nprint(*sys.modules)\n"
    )
    for name in ("one", "two", "three"):
        reader.write(f"NAME = {name!r}\n", "naming.py")
        assert reader.read().spec.name == name


def test_packages_that_start_threads_are_left_to_the_forks(tmp_path):
    """A package that starts a thread when it is imported does not make the reader one that must not fork."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    reader = Process(tmp_path, PYTHONPATH=str(site))
    reader.write("import threaded\n" + SQUARE)
    process, end = psutil.Process(reader.process.pid), time.monotonic() + 60
    while "threaded" not in process.cmdline() and time.monotonic() < end:
        assert reader.read().spec.name == "seed"  # between reads, while nobody asks, it comes to its imports
    assert process.cmdline()[-2:] == ["--without", "threaded"]
    assert reader.read().spec.name == "seed"
    assert process.num_threads() == 1
    assert reader.close() == 0
