"""What Caddy has stored."""

from __future__ import annotations

from pathlib import Path

from portico.edge.storage import forget, hosts_below


def store(folder: Path, *names: str) -> None:
    for name in names:
        place = folder / "certificates" / "some-authority" / name
        place.mkdir(parents=True)
        (place / f"{name}.key").write_text("key")


def test_a_domain_stands_for_itself_and_a_wildcard_for_one_label_more(tmp_path: Path) -> None:
    """As in certificates."""
    store(tmp_path, "example.com", "a.example.com", "b.example.com", "a.b.example.com", "other.com")
    assert hosts_below(tmp_path, "example.com") == ["example.com"]
    assert hosts_below(tmp_path, "*.example.com") == ["a.example.com", "b.example.com"]
    assert hosts_below(tmp_path, "none.com") == []


def test_what_is_forgotten_is_gone_with_its_key(tmp_path: Path) -> None:
    """And the others are not."""
    store(tmp_path, "a.com", "b.com")
    forget(tmp_path, "a.com")
    forget(tmp_path, "c.com")
    assert [path.name for path in tmp_path.rglob("*.key")] == ["b.com.key"]


def test_nothing_is_stored_before_the_first_certificate(tmp_path: Path) -> None:
    """The folder is not there, either."""
    assert hosts_below(tmp_path / "none", "*.example.com") == []
