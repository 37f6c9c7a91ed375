"""Profiles: the file, and what of it counts."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from portico.client.connect import address, current_profile
from portico.client.profiles import Profile, Profiles
from portico.client.remote import Remote, check_token, check_url
from portico.client.settings import load_settings
from portico.model.errors import InvalidError, NotFoundError, StateError

HAND_WRITTEN = """\
# mine, by hand
[home]  # the small one
server_url = "http://192.0.2.1:7777"
colour = "green"
active = true

["10.0.0.1"]
server_url = "http://10.0.0.1:7777"
"""


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path / "portico.toml")


def test_without_a_file_there_is_no_profile(profiles: Profiles) -> None:
    """And none is made by looking."""
    assert profiles.all() == []
    assert profiles.current({}) is None
    assert not profiles.path.exists()


def test_what_was_set_comes_back(profiles: Profiles) -> None:
    """In a file that only its owner may read, whatever its mode was."""
    profiles.path.touch(mode=0o644)
    profiles.change("buero.1", {"server_url": "http://a", "token_secret": 'as-"\\é'})
    assert profiles.all() == [Profile(name="buero.1", server_url="http://a", token_secret='as-"\\é')]
    assert stat.S_IMODE(profiles.path.stat().st_mode) == 0o600


def test_what_is_not_ours_stays(profiles: Profiles) -> None:
    """Comments, other keys and other profiles are as they were."""
    profiles.path.write_text(HAND_WRITTEN)
    profiles.change("home", {"server_url": "http://192.0.2.9:7777", "environment": "staging"})
    text = profiles.path.read_text()
    for line in (
        "# mine, by hand",
        "[home]  # the small one",
        'colour = "green"',
        'server_url = "http://10.0.0.1:7777"',
    ):
        assert line in text.splitlines()
    assert [(p.name, p.server_url, p.environment) for p in profiles.all()] == [
        ("home", "http://192.0.2.9:7777", "staging"),
        ("10.0.0.1", "http://10.0.0.1:7777", None),
    ]


def test_one_profile_is_active(profiles: Profiles) -> None:
    """Activating another one takes it from the one before; deactivating leaves none."""
    profiles.path.write_text(HAND_WRITTEN)
    profiles.activate("10.0.0.1")
    assert [p.active for p in profiles.all()] == [False, True]
    profiles.deactivate()
    assert profiles.current({}) is None
    with pytest.raises(NotFoundError, match="'nothing'"):
        profiles.activate("nothing")


def test_the_variable_names_a_profile(profiles: Profiles) -> None:
    """PORTICO_PROFILE comes before what is active."""
    profiles.path.write_text(HAND_WRITTEN)
    active, named = profiles.current({}), profiles.current({"PORTICO_PROFILE": "10.0.0.1"})
    assert active is not None
    assert named is not None
    assert (active.name, named.name) == ("home", "10.0.0.1")


@pytest.mark.parametrize("text", ["[home", "home = 1", "[home]\nserver_url = 7"])
def test_a_file_that_makes_no_sense_is_named(profiles: Profiles, text: str) -> None:
    """The error says which file it is."""
    profiles.path.write_text(text)
    with pytest.raises(InvalidError, match=str(profiles.path)):
        profiles.all()


def test_a_file_that_cannot_be_read_is_named(profiles: Profiles) -> None:
    """As with everything that keeps state."""
    profiles.path.mkdir()
    with pytest.raises(StateError, match=str(profiles.path)):
        profiles.all()


PROFILE = Profile(name="p", server_url="http://a:1", token_id="ak-1", token_secret="as-1")


def test_a_profile_names_the_server(tmp_path: Path) -> None:
    """Its token goes there."""
    assert address({}, PROFILE) == Remote("http://a:1", "ak-1.as-1")


def test_a_profiles_token_goes_to_no_other_server() -> None:
    """Another URL in the environment needs a token of its own."""
    assert address({"PORTICO_SERVER_URL": "http://b:1"}, PROFILE) == Remote("http://b:1", None)
    assert address({"PORTICO_SERVER_URL": "http://a:1/"}, PROFILE) == Remote("http://a:1", "ak-1.as-1")
    own = {"PORTICO_SERVER_URL": "http://b:1", "PORTICO_TOKEN_ID": "ak-2", "PORTICO_TOKEN_SECRET": "as-2"}
    assert address(own, PROFILE) == Remote("http://b:1", "ak-2.as-2")


def test_without_a_url_this_machines_server_is_meant(tmp_path: Path) -> None:
    """Its socket is in the home."""
    environ = {"PORTICO_HOME": str(tmp_path)}
    assert address(environ, None) == load_settings(environ).control_socket


def test_a_container_asks_its_own_server(tmp_path: Path) -> None:
    """Whatever profiles the account has that the server runs as."""
    (tmp_path / "portico.toml").write_text(HAND_WRITTEN)
    environ = {
        "PORTICO_HOME": str(tmp_path),
        "PORTICO_CALLS_SOCKET": "/x",
        "PORTICO_CONFIG_PATH": str(tmp_path / "portico.toml"),
        "PORTICO_SERVER_URL": "http://b:1",
    }
    assert current_profile(environ) is None
    assert address(environ, None) == load_settings(environ).control_socket


@pytest.mark.parametrize("url", ["http://a", "https://a.example", "http://192.0.2.1:7777", "http://[::1]:7777/"])
def test_good_urls(url: str) -> None:
    """Scheme, host and perhaps a port."""
    assert check_url(url, "it") == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:1",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://a?b",
        "http://u:p@a",
        "http://a:x",
        "http://a:0",
        "http://ä",
    ],
)
def test_bad_urls(url: str) -> None:
    """The error names where it comes from."""
    with pytest.raises(InvalidError, match="PORTICO_SERVER_URL is not a server's URL"):
        check_url(url, "PORTICO_SERVER_URL")


def test_a_token_has_two_halves() -> None:
    """Neither half is shown in an error, nor in the repr of what holds it."""
    assert check_token(None, "", "x") is None
    for pair in (("ak-1", None), (None, "as-hidden"), ("wk-1", "ws-hidden"), ("ak-1", "as-hidden é")):
        with pytest.raises(InvalidError) as caught:
            check_token(*pair, "x")
        assert "hidden" not in f"{caught.value.message}{caught.value.hint}"
    assert "hidden" not in repr(Remote("http://a", "ak-1.as-hidden"))
    assert "hidden" not in repr(Profile(name="p", token_secret="as-hidden"))
