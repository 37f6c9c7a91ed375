"""From a file to its app and its functions, and the tracebacks of what goes wrong there."""

import sys
from dataclasses import replace

import pytest

from portico.exception import InvalidError, NotFoundError
from portico.model.spec import EntrySpec
from portico.runtime import loader
from portico.sdk import alias

APP = "import modal\napp = modal.App('seed')\n"
FUNCTION = "@app.function()\n@modal.fastapi_endpoint()\ndef f(): return 'f'\n"


@pytest.fixture(autouse=True)
def _clean_interpreter(monkeypatch):
    """The modules, the import path and the finders are as they were, after each test."""
    modules = dict(sys.modules)
    for name in ("path", "meta_path", "path_hooks"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    monkeypatch.setattr(loader, "_fresh_roots", [])
    alias.install()
    yield
    sys.modules.clear()
    sys.modules.update(modules)
    sys.path_importer_cache.clear()


@pytest.fixture
def load(tmp_path):
    """Writes a script and imports it."""

    def write_and_import(text, name="app_under_test.py"):
        (tmp_path / name).write_text(text)
        return loader.import_entry(EntrySpec(module=name.removesuffix(".py"), path=name), tmp_path)

    return write_and_import


def test_script(load, tmp_path):
    """A script is known under its stem, and its folder comes first on the import path."""
    (tmp_path / "sibling_under_test.py").write_text("X = 3\n")
    module = load("from sibling_under_test import X\n")
    assert module.X == 3
    assert sys.modules["app_under_test"] is module
    assert sys.path[0] == str(tmp_path)


def test_module(tmp_path):
    """A module of a package is imported by its name, with its relative imports."""
    (tmp_path / "package_under_test").mkdir()
    (tmp_path / "package_under_test" / "__init__.py").touch()
    (tmp_path / "package_under_test" / "a.py").write_text("from .b import X\n")
    (tmp_path / "package_under_test" / "b.py").write_text("X = 3\n")
    assert loader.import_entry(EntrySpec(module="package_under_test.a"), tmp_path).X == 3


def test_script_that_fails_is_forgotten(load):
    """A script whose import fails leaves no half of a module behind."""
    with pytest.raises(ZeroDivisionError):
        load("1 / 0\n")
    assert "app_under_test" not in sys.modules


@pytest.mark.parametrize("name", ["random.py", "modal.py", "fastapi.py"])
def test_script_that_hides_a_module(load, name):
    """A script with the name of a module that others import is refused before anything breaks."""
    with pytest.raises(InvalidError, match="hides the module"):
        load("", name)


def test_project_wins_over_what_is_warm(load, tmp_path, monkeypatch):
    """A module of the project is taken, though another one of its name has been imported before."""
    monkeypatch.setitem(sys.modules, "warm_under_test", type(sys)("warm_under_test"))
    (tmp_path / "warm_under_test.py").write_text("X = 'project'\n")
    assert load("from warm_under_test import X\n").X == "project"


def test_fresh_import_does_not_trust_compiled_files(load, tmp_path):
    """An edit of the same size within the same second is seen."""
    path = tmp_path / "twin_under_test.py"
    loader.import_fresh(tmp_path)
    seen = []
    for value in (1, 2):
        path.write_text(f"X = {value}\n")
        sys.modules.pop("twin_under_test", None)
        seen.append(load("from twin_under_test import X\n").X)
    assert seen == [1, 2]
    assert not (tmp_path / "__pycache__").exists()


def test_one_app(load):
    """The app of a file is found under any name, once, even where two names mean it."""
    variable, app = loader.find_app(load("import modal\nmine = same = modal.App('seed')\n"))
    assert (variable, app.name) == ("mine", "seed")


def test_no_app(load):
    """A file without an app is told how to make one."""
    with pytest.raises(InvalidError, match=r"app_under_test\.py has no app") as caught:
        loader.find_app(load("import modal\n"))
    assert "modal.App(" in caught.value.hint


def test_two_apps(load):
    """A file with two apps is told how to name one; both names are there."""
    module = load("import modal\na = modal.App('one')\nb = modal.App('two')\n")
    with pytest.raises(InvalidError, match=r"2 apps: a, b") as caught:
        loader.find_app(module)
    assert "app_under_test.py::a or app_under_test.py::b" in caught.value.hint
    assert loader.find_app(module, "b")[1].name == "two"
    assert loader.find_app(module, "two")[0] == "b"


def test_unknown_app(load):
    """A name that is no app is an error that names those that are."""
    module = load(APP + "x = 3\n")
    with pytest.raises(InvalidError, match="no app named 'y'") as caught:
        loader.find_app(module, "y")
    assert "app_under_test.py::app" in caught.value.hint
    with pytest.raises(InvalidError, match="is not an app but int"):
        loader.find_app(module, "x")


def test_included_app_does_not_count(load):
    """An app that another one has taken in is no app of its own."""
    module = load("import modal\ninner = modal.App('i')\nouter = modal.App('o').include(inner)\n")
    assert loader.find_app(module)[0] == "outer"


def find(module):
    """The function behind the only specification of a module."""
    variable, app = loader.find_app(module)
    (spec,) = app.spec(EntrySpec(module=module.__name__)).functions
    return loader.find_function(module, spec, variable)


def test_function(load):
    """The user's own function is found, without its decorators."""
    assert find(load(APP + FUNCTION))() == "f"


def test_function_whose_name_is_taken_again(load):
    """A function is found though its name means something else at the end of the file."""
    assert find(load(APP + FUNCTION + "f = None\n"))() == "f"


def test_functions_of_two_apps_with_one_name(load):
    """Where two apps have a function of the same name, the one of the named app is taken."""
    module = load(
        "import modal\na = modal.App('a')\nb = modal.App('b')\n"
        "@a.function()\ndef f(): return 'a'\n@b.function()\ndef f(): return 'b'\n"
    )
    spec = module.a.functions["f"].spec
    assert [loader.find_function(module, spec, name)() for name in ("a", "b")] == ["a", "b"]


def test_function_that_is_not_there(load):
    """A function that the file does not define here is named."""
    module = load(APP + FUNCTION)
    spec = replace(module.app.functions["f"].spec, name="g")
    with pytest.raises(NotFoundError, match="no function 'g'"):
        loader.find_function(module, spec)


def test_serialized_function(load):
    """A function by value brings what it refers to, also what was defined below it and its own name."""
    module = load(
        APP + "def make(n):\n    @app.function(serialized=True, name='adder')\n    def add(x):\n"
        "        return helper(x) + n, add.name\n    return add\nadd = make(3)\ndef helper(x): return 10 * x\n"
    )
    (spec,) = module.app.spec(EntrySpec(module="app_under_test")).functions
    del sys.modules["app_under_test"]
    assert loader.find_function(type(sys)("elsewhere"), spec)(2) == (23, "adder")


def test_unregistered_functions(load):
    """A web decorator without `@app.function` is found out."""
    assert loader.unregistered(load(APP + "@modal.fastapi_endpoint()\ndef f(): ...\n")) == ["f"]


def caught(load, text):
    with pytest.raises(BaseException) as info:  # noqa: PT011 - whatever the user's code raises
        load(text)
    return loader.user_traceback(info.value)


def test_traceback_has_the_users_frames_only(load, tmp_path):
    """The traceback begins in the user's file; our frames and the import system's are not in it."""
    (tmp_path / "deep_under_test.py").write_text("def f(): raise ValueError('two\\nlines')\n")
    cause, text = caught(load, "from deep_under_test import f\nf()\n")
    assert cause == "ValueError: two"
    frames = [line.partition(", ")[0] for line in text.splitlines() if line.startswith("  File ")]
    test = f'  File "{__file__}"'
    assert [frame for frame in frames if frame != test] == [
        f'  File "{tmp_path}/{name}_under_test.py"' for name in ("app", "deep")
    ]
    assert "portico" not in text
    assert "importlib" not in text


def test_traceback_of_a_chain(load):
    """The cause behind an exception is shown too."""
    _, text = caught(load, "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('x') from e\n")
    assert "ZeroDivisionError" in text
    assert "direct cause" in text


def test_traceback_of_a_syntax_error(load, tmp_path):
    """A syntax error names the file and the line."""
    cause, text = caught(load, "def f(:\n")
    assert cause.startswith("SyntaxError: invalid syntax (app_under_test.py, line 1)")
    assert f'File "{tmp_path}/app_under_test.py", line 1' in text
    assert "importlib" not in text


def test_traceback_of_our_own_error(load):
    """What our SDK refuses points to the user's line, under a short name."""
    cause, text = caught(load, APP + "app.function(timeout=None)\n")
    assert cause.startswith("InvalidError: The `timeout` parameter")
    assert "app.function(timeout=None)" in text
    assert "\nInvalidError: " in text


def test_traceback_inside_a_library(load):
    """The frames of a library that the user called are kept."""
    _, text = caught(load, "import json\njson.loads('x')\n")
    assert "json/decoder.py" in text
