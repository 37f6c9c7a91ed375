"""Which host leads where, and who has a name that two apps want."""

from __future__ import annotations

import pytest

from portico.core.routes import Owner, RouteTable
from portico.model.errors import ConflictError


def a_table(**targets: dict[str, str]) -> RouteTable[str]:
    """A table in which these deployed apps have these names."""
    routes: RouteTable[str] = RouteTable()
    for app, names in targets.items():
        routes.assign(Owner(f"ap-{app}", app), names)
    return routes


def leads(routes: RouteTable[str], host: str) -> str | None:
    """Where a custom domain leads; "stopped" where its app was."""
    claim = routes.at(host)
    return None if claim is None else claim.target or "stopped"


def test_a_label_of_a_deployed_app_is_not_given_away() -> None:
    """The error names the holder."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one"), {"acme--api": "x"})
    with pytest.raises(ConflictError, match="one"):
        routes.check(["acme--api"], Owner("ap-2", "two"))


def test_a_newer_ephemeral_app_takes_a_label_over() -> None:
    """And it is told whose it was."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one", ephemeral=True), {"acme--api-dev": "x"})
    taken = routes.check(["acme--api-dev"], Owner("ap-2", "two", ephemeral=True))
    assert [claim.owner.app_name for claim in taken] == ["one"]


def test_a_label_goes_back_to_the_app_that_it_was_taken_from() -> None:
    """When the one that took it ends; an update in between takes nothing back."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one", ephemeral=True), {"acme--api-dev": "x"})
    routes.assign(Owner("ap-2", "two", ephemeral=True), {"acme--api-dev": "y"})
    routes.assign(Owner("ap-1", "one", ephemeral=True), {"acme--api-dev": "z"})
    claim = routes.get("acme--api-dev")
    assert claim is not None
    assert claim.target == "y"
    assert routes.stop("ap-2") == {"acme--api-dev": "ap-1"}
    claim = routes.get("acme--api-dev")
    assert claim is not None
    assert claim.target == "z"


def test_an_app_that_ends_without_its_label_changes_nothing() -> None:
    """The one that took it keeps it."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one", ephemeral=True), {"acme--api-dev": "x"})
    routes.assign(Owner("ap-2", "two", ephemeral=True), {"acme--api-dev": "y"})
    assert routes.stop("ap-1") == {}
    assert routes.stop("ap-2") == {}
    claim = routes.get("acme--api-dev")
    assert claim is not None
    assert claim.target is None


def test_a_stopped_app_leaves_its_labels_behind_as_stopped() -> None:
    """Clients learn that it was stopped; another app may take the label."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one"), {"acme--api": "x"})
    routes.stop("ap-1")
    claim = routes.get("acme--api")
    assert claim is not None
    assert claim.target is None
    assert routes.check(["acme--api"], Owner("ap-2", "two")) == []


def test_an_app_that_drops_a_function_gives_its_label_back() -> None:
    """Only what the newest version has is routed."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one"), {"a": "x", "b": "y"})
    routes.assign(Owner("ap-1", "one"), {"a": "x"})
    assert routes.get("b") is None


def test_the_most_exact_domain_wins() -> None:
    """An exact name over a wildcard; of wildcards, the one that is one label shorter than the host."""
    routes = a_table(
        exact={"api.example.com": "exact"},
        wild={"*.example.com": "wild"},
        deeper={"*.api.example.com": "deeper"},
    )
    assert leads(routes, "api.example.com") == "exact"
    assert leads(routes, "www.example.com") == "wild"
    assert leads(routes, "v1.api.example.com") == "deeper"


@pytest.mark.parametrize("host", ["example.com", "a.b.example.com", "xample.com", "example", "*.example.com", ""])
def test_a_wildcard_stands_for_one_label(host: str) -> None:
    """As in certificates: not for none, and not for two."""
    assert leads(a_table(wild={"*.example.com": "wild"}), host) is None


def test_a_label_is_no_domain() -> None:
    """Who asks for it as a host, without the server's domain behind it, finds nothing."""
    assert leads(a_table(one={"acme--shop": "x"}), "acme--shop") is None


def test_a_living_wildcard_comes_before_a_stopped_exact_name() -> None:
    """Where there is no living one, clients learn that the app was stopped."""
    routes = a_table(exact={"api.example.com": "exact"}, wild={"*.example.com": "wild"})
    routes.stop("ap-exact")
    assert leads(routes, "api.example.com") == "wild"
    routes.stop("ap-wild")
    assert leads(routes, "api.example.com") == "stopped"


def test_the_holder_of_a_domain_is_named_with_its_environment() -> None:
    """And so is the command that stops it there."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "shop", "staging"), {"api.example.com": "x"})
    with pytest.raises(ConflictError, match="'shop' in the environment 'staging'") as caught:
        routes.check(["api.example.com"], Owner("ap-2", "shop"))
    assert "portico app stop shop -e staging" in str(caught.value.hint)


def test_a_served_app_takes_no_domain_from_a_deployed_one() -> None:
    """Only from another served app."""
    routes = a_table(shop={"api.example.com": "x"})
    with pytest.raises(ConflictError, match="shop"):
        routes.check(["api.example.com"], Owner("ap-2", "two", ephemeral=True))


def test_a_deployed_app_takes_a_domain_over_from_a_served_one() -> None:
    """Which has it again when the deployed one is stopped."""
    routes: RouteTable[str] = RouteTable()
    routes.assign(Owner("ap-1", "one", ephemeral=True), {"api.example.com": "served"})
    routes.assign(Owner("ap-2", "two"), {"api.example.com": "deployed"})
    assert leads(routes, "api.example.com") == "deployed"
    assert routes.stop("ap-2") == {"api.example.com": "ap-1"}
    assert leads(routes, "api.example.com") == "served"
