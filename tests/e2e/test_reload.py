"""Live reload of a served app: what is edited, and what answers then."""

from __future__ import annotations

import itertools
import shutil
import signal
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.conftest import Answer, Machine, Process, wait_until

APP = """
import modal

app = modal.App("{name}")


@app.function()
@modal.fastapi_endpoint()
def f():
    return "{word}"
"""
MORE = """

@app.function()
@modal.fastapi_endpoint()
def g():
    return "more"
"""
SLOW = """
from pathlib import Path

gate = Path("{gate}")


@app.function()
@modal.fastapi_endpoint()
def slow():
    import time
    gate.with_suffix(".begun").touch()
    while not gate.exists():
        time.sleep(0.01)
    return "{word}"
"""
WAITS_AT_IMPORT = """
import modal
import os
import time
from pathlib import Path

gate = Path("{gate}")
if {where}:
    gate.with_suffix(".tmp").write_text(str(os.getpid()))
    gate.with_suffix(".tmp").rename(gate.with_suffix(".begun"))
    while not gate.exists():
        time.sleep(0.01)
"""


_numbers = itertools.count()


class Served:
    """An app in a folder of its own, served, and edited."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.folder = machine.folder / name
        self.gate = machine.folder.parent / f"{name}.gate"
        self.begun = self.gate.with_suffix(".begun")
        self.process: Process | None = None

    def write(self, text: str, file: str = "app.py") -> None:
        """Save a file."""
        self.machine.write(f"{self.name}/{file}", text)

    def edit(self, word: str, more: str = "") -> None:
        """Save the app with another word."""
        self.write(APP.format(name=self.name, word=word) + more)

    def start(self, *options: str) -> str:
        """Serve it; the URL of f."""
        self.process = self.machine.start("serve", f"{self.name}/app.py", *options)
        self.process.until(f"Serving {self.name};")
        return self.url("f")

    def url(self, function: str) -> str:
        """Its URL."""
        return f"http://acme--{self.name}-{function}-dev.localhost:{self.machine.port}"

    def until(self, pattern: str) -> str:
        """The next line in which the pattern is found."""
        assert self.process is not None
        return self.process.until(pattern).string

    def ask(self, function: str = "f") -> object:
        """What the function answers."""
        answer = self.machine.request(self.url(function))
        assert answer.status == 200, answer.text
        return answer.json

    def ask_aside(self, function: str = "f") -> Callable[[], Answer]:
        """Ask in a thread; call the result to wait for the answer."""
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(self.machine.request(self.url(function))))
        thread.start()

        def answer() -> Answer:
            thread.join(40)
            return answers[0]

        return answer

    def queued(self) -> int:
        """Requests of f that wait."""
        return next(f["queued"] for f in self.machine.app(self.name)["functions"] if f["name"] == "f")


@pytest.fixture
def served(shared: Machine) -> Iterator[Served]:
    """An app of its own for the test, not yet served, on the shared server."""
    name = f"reload{next(_numbers)}"
    served = Served(shared, name)
    served.edit("old")
    yield served
    served.gate.touch()
    if served.process is not None:
        served.process.end()
    shutil.rmtree(served.folder)


# -- new code ---------------------------------------------------------------------------------------------------------
def test_edited_code_answers(served: Served) -> None:
    """As soon as it says that it has reloaded; the file that changed is named."""
    served.start()
    assert served.ask() == "old"
    served.edit("new")
    assert served.until("reloading") == f"{served.name}/app.py changed; reloading"
    served.until("Reloaded in [0-9]+ ms")
    assert served.ask() == "new"


def test_many_edits_one_after_the_other(served: Served) -> None:
    """Each is answered by its own code."""
    served.start()
    for number in range(5):
        served.edit(f"edit {number}")
        served.until("Reloaded")
        assert served.ask() == f"edit {number}"


def test_an_edit_of_a_sibling_reloads(served: Served) -> None:
    """Modules next to the file, and below it; each is named."""
    served.write("WORD = 'one'\n", "words/first.py")
    served.write(
        APP.format(name=served.name, word="x")
        .replace('"x"', "WORD")
        .replace("import modal", "import modal\nfrom words.first import WORD")
    )
    served.start()
    assert served.ask() == "one"
    served.write("WORD = 'two'\n", "words/first.py")
    served.until(f"^{served.name}/words/first.py changed; reloading")
    served.until("Reloaded")
    assert served.ask() == "two"


def test_a_module_in_a_new_folder_reloads(served: Served) -> None:
    """Folders that come while it serves are watched, too."""
    served.start()
    served.write("WORD = 'one'\n", "later/words.py")
    served.edit("x")
    served.until("Reloaded")
    served.write(
        APP.format(name=served.name, word="x")
        .replace('"x"', "WORD")
        .replace("import modal", "import modal\nfrom later.words import WORD")
    )
    served.until("app.py changed")
    served.until("Reloaded")
    assert served.ask() == "one"
    served.write("WORD = 'two'\n", "later/words.py")
    served.until("later/words.py changed")
    served.until("Reloaded")
    assert served.ask() == "two"


def test_an_editor_that_replaces_the_file_reloads(served: Served) -> None:
    """Write to a temporary name, rename: the temporary file is not what is named."""
    served.start()
    temporary = served.folder / "app.py.tmp"
    temporary.write_text(APP.format(name=served.name, word="new"))
    temporary.rename(served.folder / "app.py")
    assert served.until("reloading") == f"{served.name}/app.py changed; reloading"
    served.until("Reloaded")
    assert served.ask() == "new"


def test_a_new_function_gets_its_url_printed(served: Served) -> None:
    """On a line of its own, and it answers."""
    served.start()
    served.edit("old", MORE)
    assert served.until(f"^{served.url('g')}$")
    assert served.ask("g") == "more"


def test_a_removed_function_answers_404(served: Served) -> None:
    """The other goes on."""
    served.edit("old", MORE)
    served.start()
    assert served.ask("g") == "more"
    served.edit("new")
    served.until("Reloaded")
    assert served.machine.request(served.url("g")).status == 404
    assert served.ask() == "new"


# -- requests meanwhile -----------------------------------------------------------------------------------------------
def test_a_request_in_flight_finishes_on_the_old_code(served: Served) -> None:
    """New ones are answered by the new code meanwhile."""
    served.edit("old", SLOW.format(gate=served.gate, word="old"))
    served.start()
    slow = served.ask_aside("slow")
    wait_until(served.begun.exists, "the request is in the function")
    served.edit("new", SLOW.format(gate=served.gate, word="new"))
    served.until("Reloaded")
    assert served.ask() == "new"
    served.gate.touch()
    answer = slow()
    assert (answer.status, answer.json) == (200, "old")
    assert served.ask("slow") == "new"


@pytest.mark.parametrize("where", ["modal.is_local()", "not modal.is_local()"])
def test_requests_during_the_reload_wait_for_the_new_code(served: Served, where: str) -> None:
    """While the file is read, and while its first container starts."""
    served.start()
    assert served.ask() == "old"
    slow = WAITS_AT_IMPORT.format(gate=served.gate, where=where)
    served.write(APP.format(name=served.name, word="new").replace("import modal", slow))
    wait_until(served.begun.exists, "the new code is being imported")
    waiting = [served.ask_aside() for _ in range(3)]
    wait_until(lambda: served.queued() == 3, "the requests have arrived")
    served.gate.touch()
    assert [(answer().status, answer().json) for answer in waiting] == [(200, "new")] * 3


def test_requests_during_a_reload_that_fails_get_the_old_code(served: Served) -> None:
    """They have waited, and are not lost."""
    served.start()
    assert served.ask() == "old"
    slow = WAITS_AT_IMPORT.format(gate=served.gate, where="True") + "raise RuntimeError('no')\n"
    served.write(APP.format(name=served.name, word="new").replace("import modal", slow))
    wait_until(served.begun.exists, "the new code is being imported")
    waiting = served.ask_aside()
    wait_until(lambda: served.queued() == 1, "the request has arrived")
    served.gate.touch()
    answer = waiting()
    assert (answer.status, answer.json) == (200, "old")


def test_ctrl_c_during_a_reload_ends_everything(served: Served) -> None:
    """Also when the new code hangs at import."""
    url = served.start()
    endless = WAITS_AT_IMPORT.format(gate=served.gate, where="True")
    served.write(APP.format(name=served.name, word="new").replace("import modal", endless))
    wait_until(served.begun.exists, "the new code is being imported")
    assert served.process is not None
    assert served.process.interrupt() == 0
    assert served.machine.request(url).status == 404


def test_an_app_that_is_stopped_during_a_reload_stays_stopped(served: Served) -> None:
    """The new version does not come up behind the back of a serve that hears of the end late."""
    url = served.start()
    slow = WAITS_AT_IMPORT.format(gate=served.gate, where="not modal.is_local()")
    served.write(APP.format(name=served.name, word="new").replace("import modal", slow))
    wait_until(served.begun.exists, "the new version's container starts")
    assert served.process is not None
    served.process.popen.send_signal(signal.SIGSTOP)
    machine = served.machine
    machine.run("app", "stop", served.name, "--yes")
    wait_until(lambda: served.name not in machine.run("app", "list").stdout, "the app has ended")
    served.gate.touch()
    wait_until(lambda: not psutil.pid_exists(int(served.begun.read_text())), "its last container has ended")
    assert machine.request(url).status == 404
    assert served.name not in machine.run("app", "list").stdout
    served.process.popen.send_signal(signal.SIGCONT)
    served.process.popen.wait(30)


# -- code that is broken ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("breakage", "error"),
    [
        ("def (:\n", "SyntaxError: "),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise RuntimeError('at import')\n", "RuntimeError: at import"),
    ],
)
def test_broken_code_keeps_the_last_good_version_up(served: Served, breakage: str, error: str) -> None:
    """The traceback is printed, the file named; mending it reloads."""
    served.start()
    served.edit("broken", breakage)
    served.until(f'File ".*{served.name}/app.py", line')
    served.until(f"^{error}")
    served.until("^Error: .*app.py")
    served.until("the last good version stays up")
    assert served.ask() == "old"
    served.edit("mended")
    served.until("Reloaded")
    assert served.ask() == "mended"


def test_a_broken_sibling_is_named(served: Served) -> None:
    """And mending the sibling reloads."""
    served.write("", "helper.py")
    served.write("import helper\n" + APP.format(name=served.name, word="old"))
    served.start()
    served.write("oops(\n", "helper.py")
    served.until(r"^Error: .*helper.py")
    served.until("the last good version stays up")
    assert served.ask() == "old"
    served.write("", "helper.py")
    served.write("import helper\n" + APP.format(name=served.name, word="mended"))
    served.until("Reloaded")
    assert served.ask() == "mended"


def test_mending_by_going_back_is_as_good(served: Served) -> None:
    """Undo: the code that runs is the code on disk again; the next edit reloads."""
    served.start()
    served.edit("broken", "def (:\n")
    served.until("the last good version stays up")
    served.edit("old")
    assert served.ask() == "old"
    served.edit("new")
    served.until("Reloaded")
    assert served.ask() == "new"


def test_a_container_that_cannot_start_keeps_the_last_good_version_up(served: Served) -> None:
    """Code that can be read here, and fails in the container."""
    served.start()
    served.edit("broken", "\nif not modal.is_local():\n    raise RuntimeError('only there')\n")
    served.until("RuntimeError: only there")
    served.until("the last good version stays up")
    assert served.ask() == "old"
    served.edit("mended")
    served.until("Reloaded")
    assert served.ask() == "mended"


def test_a_file_that_loses_its_app_keeps_the_last_good_version_up(served: Served) -> None:
    """It is an error like others."""
    served.start()
    served.write("import modal\n")
    served.until("Error: app.py has no app|Error: .*app.py.* no app")
    assert served.ask() == "old"


def test_an_endless_loop_can_be_mended(served: Served) -> None:
    """The file is read anew when it is saved anew."""
    served.start()
    endless = WAITS_AT_IMPORT.format(gate=served.gate, where="True")
    served.write(APP.format(name=served.name, word="endless").replace("import modal", endless))
    wait_until(served.begun.exists, "the new code is being imported")
    served.edit("mended")
    served.until("Reloaded")
    assert served.ask() == "mended"


def test_a_file_that_is_deleted_and_comes_back_reloads(served: Served) -> None:
    """As git does when it changes branches."""
    served.start()
    (served.folder / "app.py").unlink()
    served.until("the last good version stays up")
    assert served.ask() == "old"
    served.edit("new")
    served.until("Reloaded")
    assert served.ask() == "new"


# -- what does not reload ---------------------------------------------------------------------------------------------
TOOLS_WRITE = [
    ".app.py.swp",
    "4913",
    "app.py~",
    ".#app.py",
    ".DS_Store",
    ".git/index.py",
    "__pycache__/app.cpython-311.pyc",
    ".venv/lib/python3.11/site-packages/thing.py",
    "environment/lib/thing.py",
    "node_modules/thing.py",
]


def test_what_tools_write_does_not_reload(served: Served) -> None:
    """Editors, git, Python, virtual environments of any name: the app is not even read again."""
    served.write("", "environment/pyvenv.cfg")
    for file in TOOLS_WRITE:
        served.write("before", file)
    served.edit("old", "print('is read')\n")
    served.start()
    served.edit("new", "print('is read')\n")
    served.until("Reloaded")  # from here on it surely watches
    for file in TOOLS_WRITE:
        served.write("after", file)
        served.write("new", f"{file}.swp")
    (served.folder / "other.py").touch()
    served.until("Reloaded")
    assert served.process is not None
    changes = [line for line in served.process.seen if "changed" in line]
    assert changes == [f"{served.name}/{name} changed; reloading" for name in ("app.py", "other.py")]


def test_without_reload_the_code_stays(served: Served) -> None:
    """--no-reload: where another command would reload, this one does not."""
    url = served.start("--no-reload")
    other = Served(served.machine, served.name)
    other.process = served.machine.start("serve", f"{served.name}/app.py", "--name", "witness")
    other.process.until("Serving witness")
    served.edit("new")
    other.until("Reloaded")
    other.process.interrupt()
    assert served.machine.request(url).json == "old"
    assert served.process is not None
    served.process.interrupt()
    assert not [line for line in served.process.rest() if "changed" in line or "Reloaded" in line]


def test_saving_the_same_content_does_not_reload(served: Served) -> None:
    """The file is read, and found to be the same."""
    served.edit("old", "print('is read')\n")
    served.start()
    served.edit("newer", "print('is read')\n")
    served.until("Reloaded")
    served.edit("newer", "print('is read')\n")
    served.until("^is read$")
    (served.folder / "other.py").touch()
    served.until("Reloaded")
    assert served.process is not None
    reloads = [line for line in served.process.seen if "reloading" in line]
    assert len(reloads) == 2, served.process.seen
