"""`import modal` and `import portico`, each in a fresh interpreter."""

import subprocess
import sys

import pytest


@pytest.fixture
def official(tmp_path):
    """A folder with a package `modal` that is not ours."""
    package = tmp_path / "modal"
    package.mkdir()
    (package / "__init__.py").write_text("OFFICIAL = True\nraise SystemExit('the official client was imported')\n")
    (package / "exception.py").write_text("OFFICIAL = True\n")
    (package / "cli.py").write_text("OFFICIAL = True\n")
    return tmp_path


def run(code, path=None):
    """What a fresh interpreter prints, with `path` in front of its import path."""
    first = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    done = subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ALIASED = "from portico.sdk import alias; alias.install(); alias.install()\n"


def test_alias_wins_over_the_official_client(official):
    """With the alias, every way to import `modal` gives our modules, though another package lies in front."""
    said = run(
        ALIASED + "import modal, portico, modal.exception, portico.exception\n"
        "from modal import App, exception\nfrom modal.exception import InvalidError\nfrom modal.image import Image\n"
        "print(modal is portico, exception is portico.exception, App is portico.App, Image is portico.Image,"
        " portico.__spec__.name, portico.exception.__spec__.name)",
        official,
    )
    assert said == "True True True True portico portico.exception"


def test_alias_has_no_second_copy_of_us(official):
    """A module that we do not offer is not found, neither theirs nor a second copy of ours."""
    said = run(
        ALIASED + "for name in ('modal.cli', 'modal.experimental', 'modal.a.b'):\n"
        "    try: __import__(name); print('found', name)\n    except ModuleNotFoundError as error: print(error.name)",
        official,
    )
    assert said.split() == ["modal.cli", "modal.experimental", "modal.a"]


def test_alias_takes_the_place_of_what_is_imported(tmp_path):
    """Where the other package is imported already, the alias takes its place."""
    (tmp_path / "modal").mkdir()
    (tmp_path / "modal" / "__init__.py").write_text("from modal import exception\n")
    (tmp_path / "modal" / "exception.py").touch()
    said = run(
        "import modal\n" + ALIASED + "import modal.exception as e, portico; print(e is portico.exception)", tmp_path
    )
    assert said == "True"


def test_plain_scripts():
    """With the distribution portico-modal a plain script's `import modal` is Portico."""
    assert run("import modal, portico, modal.exception; print(modal is portico)") == "True"


def test_import_is_light():
    """`import portico` brings no event loop, no codec, no HTTP, and nothing of the server."""
    said = run("import sys, portico; print(*sorted(sys.modules))").split()
    heavy = {"asyncio", "msgspec", "http.client", "cloudpickle", "fastapi", "importlib.metadata", "click", "uvicorn"}
    assert heavy.isdisjoint(said)
    rooms = {name.split(".")[1] for name in said if name.startswith("portico.")}
    assert rooms <= {"exception", "model", "sdk", "wire"}


def test_version_is_that_of_the_package():
    """The version in the code is the one in the package's metadata."""
    said = run("import portico, importlib.metadata as m; print(portico.__version__ == m.version('portico'))")
    assert said == "True"


def test_names_that_are_not_there():
    """A name that Portico has not is an AttributeError that says so."""
    said = run(
        "import portico\nfor name in ('Stub', 'forward'):\n"
        "    try: getattr(portico, name)\n    except AttributeError as error: print(error)"
    )
    assert "Use `modal.App` instead" in said
    assert "no `modal.forward`" in said


def test_placeholders():
    """What is not offered can be named and made, and its use is refused."""
    said = run(
        "import portico as modal\nfrom portico.exception import UnsupportedError\n"
        "volume = modal.Volume.from_name('v', create_if_missing=True)\nqueue = modal.Queue.from_name('q')\n"
        "for use in (lambda: volume.commit(), lambda: queue.put(1), lambda: modal.Sandbox.create()):\n"
        "    try: use()\n    except UnsupportedError as error: print(error)"
    )
    assert said.count("not supported by this server yet") == 3


def test_is_local():
    """A process is on the user's side until it becomes a container; there a function knows its URL."""
    said = run(
        "import portico as modal\nfrom portico.sdk import context\nprint(modal.is_local())\n"
        "app = modal.App('seed')\n@app.function()\n@modal.fastapi_endpoint()\ndef f(): ...\n"
        "context.enter_container('seed', 'ap-1', {'f': 'http://f'})\n"
        "print(modal.is_local(), f.get_web_url(), modal.Function.from_name('seed', 'f').get_web_url())"
    )
    assert said.split() == ["True", "False", "http://f", "http://f"]
