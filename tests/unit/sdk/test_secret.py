"""Secrets, `.env` files, retries and schedules."""

import pytest

import portico as modal
from portico.exception import InvalidError
from portico.model.spec import EntrySpec, SecretSpec
from portico.sdk import context
from portico.sdk.dotenv import parse_dotenv
from portico.wire.container import Launch, View
from portico.wire.control import SecretRequest


@pytest.fixture
def container(monkeypatch):
    """This process is a container for the time of a test."""
    monkeypatch.setattr(context, "_container", None)
    context.enter_container("seed", "ap-1", {})


def test_from_dict():
    """Variables that are None are left out."""
    assert modal.Secret.from_dict({"A": "1", "B": None}).spec.values == {"A": "1"}


@pytest.mark.parametrize(
    "variables", [{"A": 1}, {1: "A"}, {"1A": "x"}, {"A-B": "x"}, {"": "x"}, {"A": "x" * 32_769}, {"A": "\0"}, "A=1"]
)
def test_bad_variables(variables):
    """Keys are names of variables, values are strings, neither is too long."""
    with pytest.raises(InvalidError):
        modal.Secret.from_dict(variables)


def test_from_local_environ(monkeypatch):
    """Variables of the local environment; a missing one is named."""
    monkeypatch.setenv("PORTICO_TEST_A", "1")
    assert modal.Secret.from_local_environ(["PORTICO_TEST_A"]).spec.values == {"PORTICO_TEST_A": "1"}
    with pytest.raises(InvalidError, match="PORTICO_TEST_B"):
        modal.Secret.from_local_environ(["PORTICO_TEST_A", "PORTICO_TEST_B"])


def test_dotenv_is_looked_for_upwards(tmp_path, monkeypatch):
    """The nearest file counts: from the working folder, or from where one says."""
    (tmp_path / ".env").write_text("A=1\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "app.py").touch()
    monkeypatch.chdir(below)
    assert modal.Secret.from_dotenv().spec.values == {"A": "1"}
    assert modal.Secret.from_dotenv(below / "app.py").spec.values == {"A": "1"}
    with pytest.raises(InvalidError, match=r"No file '\.env-dev'"):
        modal.Secret.from_dotenv(filename=".env-dev")


def test_local_sources_are_not_missed_in_a_container(container):
    """In a container the values have come with the function."""
    assert modal.Secret.from_local_environ(["PORTICO_TEST_B"]).spec.values == {}
    assert modal.Secret.from_dotenv(filename="none").spec.values == {}


def test_named_secret():
    """A named secret says where it is kept and what it must have, and has no values."""
    secret = modal.Secret.from_name("aws", environment_name="prod", required_keys=["KEY"])
    assert secret.spec == SecretSpec(name="aws", environment="prod", required_keys=("KEY",))
    assert secret.name == "aws"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("not a name", {}),
        ("x" * 65, {}),
        ("aws", {"required_keys": "KEY"}),
        ("aws", {"required_keys": ["1KEY"]}),
        ("aws", {"environment_name": "not a name"}),
    ],
)
def test_bad_named_secrets(name, options):
    """Names and keys are checked where they are written."""
    with pytest.raises(InvalidError):
        modal.Secret.from_name(name, **options)


def test_a_long_key_is_not_shown_whole():
    """A key of 20 KB is refused with its length and its beginning."""
    with pytest.raises(InvalidError, match=r"20,480 characters; at most 16,384") as caught:
        modal.Secret.from_dict({"K" * 20_480: "x"})
    assert len(caught.value.message) < 300


def test_values_are_in_no_repr():
    """What is shown of secrets, functions and apps has names of variables at most."""
    app = modal.App("seed", secrets=[modal.Secret.from_dict({"KEY": "hidden-value"})])

    @app.function(env={"OTHER": "hidden-value"}, serialized=True)
    def plain():
        pass

    spec = app.spec(EntrySpec(module="seed"))
    launch = Launch(
        container_id="ct-1",
        app_id="ap-1",
        app_name="seed",
        function=spec.functions[0],
        entry=spec.entry,
        bundle_dir="",
        workdir="",
        socket_path="",
        view=View(folder=""),
        env={"KEY": "hidden-value"},
        urls={},
    )
    request = SecretRequest(variables={"KEY": "hidden-value"})
    for shown in (modal.Secret.from_dict({"KEY": "hidden-value"}), spec, launch, request):
        assert "hidden-value" not in repr(shown)


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("# a comment\n\nexport A=1 # another\nB=a#b\n", {"A": "1", "B": "a#b"}),
        ("A='$x ${HOME} # \\n'\n", {"A": "$x ${HOME} # \\n"}),
        ('A="line\\nbreak" # c\nB="two\nlines"\n', {"A": "line\nbreak", "B": "two\nlines"}),
        ("A=1\nB=${A}-${HOME}-${NO:-none}-${NO}\n", {"A": "1", "B": "1-/home-none-"}),
        ("A=\nB\n", {"A": "", "B": None}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ],
)
def test_dotenv(text, variables):
    """Quotes, comments, references and line ends are read as in the shell's and python-dotenv's files."""
    assert parse_dotenv(text, {"HOME": "/home"}) == variables


def test_a_line_of_dotenv_that_is_none_is_not_shown():
    """It may be the rest of a value without quotes; the error has its number."""
    with pytest.raises(InvalidError, match=r"Line 3 of the \.env file") as caught:
        parse_dotenv("A=1\nKEY=-----BEGIN KEY-----\nMIIEvQ+hidden==\n-----END KEY-----\n", {})
    assert "hidden" not in caught.value.message + (caught.value.hint or "")


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": 1, "backoff_coefficient": 0.5},
        {"max_retries": 1, "backoff_coefficient": 11},
        {"max_retries": 1, "initial_delay": 61},
        {"max_retries": 1, "max_delay": 0.5},
    ],
)
def test_bad_retries(options):
    """Delays and coefficients have the API's limits."""
    with pytest.raises(InvalidError):
        modal.Retries(**options)


def test_bad_schedules():
    """A cron line has five fields, a period is longer than nothing."""
    with pytest.raises(InvalidError, match="Not a cron line"):
        modal.Cron("every day")
    with pytest.raises(InvalidError, match="longer than zero"):
        modal.Period()
