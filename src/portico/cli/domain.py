"""`portico domain`: custom domains that endpoints may have."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal, minute, table
from portico.client.connect import connect
from portico.wire.control import DomainCheck, DomainInfo
from portico.wire.domains import domain_name, shell_word

_NOT_RIGHT = ("wrong", "missing", "failed")


@click.group(short_help="Register custom domains, and check their DNS.")
def domain() -> None:
    """Custom domains: what is registered here can stand in `custom_domains=[…]` of an app that is deployed here."""


@domain.command("add", short_help="Register a domain, and show the DNS records that it needs.")
@click.argument("name")
@options.as_json
def domain_add(name: str, as_json: bool) -> None:
    """Register NAME: api.example.com, or '*.example.com' for all names with one label more. Shows the DNS records that
    it needs, and whether they are there. A name that is registered stays so, and is checked again.
    """
    terminal = Terminal.standard()
    client = connect()
    made = client.add_domain(domain_name(name))
    found = client.check_domain(made.name)
    if as_json:
        terminal.result(msgspec.json.encode(msgspec.structs.asdict(made) | {"dns": found}).decode())
        return
    terminal.result(f"✓ Domain {made.name} is registered.")
    _report(found, terminal)
    if found.verdict in _NOT_RIGHT:
        terminal.note(f"Look again with: portico domain check {shell_word(made.name)}")
    terminal.note(f'In a function\'s file: @modal.fastapi_endpoint(custom_domains=["{made.name}"])')


@domain.command("check", short_help="Look where DNS leads a domain.")
@click.argument("name")
@options.as_json
def domain_check(name: str, as_json: bool) -> None:
    """Show the DNS records that the registered domain NAME needs, and where DNS leads it now.

    The exit code is 1 where it leads elsewhere, or nowhere.
    """
    terminal = Terminal.standard()
    found = connect().check_domain(domain_name(name))
    if as_json:
        terminal.result(msgspec.json.encode(found).decode())
    else:
        _report(found, terminal)
    if found.verdict in _NOT_RIGHT:
        raise click.exceptions.Exit(1)


@domain.command("list", short_help="List the domains, who uses them, and their certificates.")
@options.as_json
def domain_list(as_json: bool) -> None:
    """List the registered domains: which app uses each, and how its certificate is doing."""
    terminal = Terminal.standard()
    found = connect().domains()
    if as_json:
        terminal.result(msgspec.json.encode(found).decode())
    elif found:
        rows = [[d.name, minute(d.created_at), d.created_by, _users(d), _certificate(d)] for d in found]
        terminal.result(table(["NAME", "REGISTERED", "BY", "USED BY", "CERTIFICATE"], rows))
    else:
        terminal.note("There is no custom domain. Register one with `portico domain add NAME`.")


@domain.command("remove", short_help="Register a domain no longer.")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also where an app uses it: from now on it does not lead there.")
@options.as_json
def domain_remove(name: str, force: bool, as_json: bool) -> None:
    """Register NAME no longer. An app that uses it is named, and keeps it, unless --force takes it away."""
    terminal = Terminal.standard()
    gone = connect().remove_domain(domain_name(name), force=force)
    if as_json:
        terminal.result(msgspec.json.encode(gone).decode())
        return
    terminal.result(f"✓ Domain {gone.name} is removed.")
    if gone.used_by:
        terminal.note(f"It was used by: {_users(gone)}.")


def _report(found: DomainCheck, terminal: Terminal) -> None:
    """The records on stdout, what DNS says on stderr."""
    aliases = [record for record in found.records if record.type == "CNAME"]
    direct = [record for record in found.records if record.type != "CNAME"]
    if aliases and direct:
        terminal.note("It needs one CNAME record or, where the name has other records too, the others:")
    elif found.records:
        terminal.note("It needs these DNS records:" if len(direct) > 1 else "It needs this DNS record:")
    else:
        terminal.note(
            "It needs an A record (AAAA for IPv6) with the address at which the internet reaches this server. "
            "Portico does not know it: say it with `portico up --public-address`, or PORTICO_PUBLIC_ADDRESS."
        )
    if found.records:
        rows = [[record.type, record.name, record.value] for record in [*aliases, *direct]]
        terminal.result(table(["TYPE", "NAME", "VALUE"], rows))
    if found.verdict in _NOT_RIGHT:
        terminal.warn(found.message)
    else:
        terminal.note(f"{'✓ ' if found.verdict == 'right' else ''}{found.message}")


def _users(domain: DomainInfo) -> str:
    users = (use.app if use.environment == "main" else f"{use.app} ({use.environment})" for use in domain.used_by)
    return ", ".join(dict.fromkeys(users)) or "-"


def _certificate(domain: DomainInfo) -> str:
    if domain.certificate_state is None or domain.certificate_at is None:
        return "-"
    detail = f": {' '.join(domain.certificate_detail.split())}" if domain.certificate_detail else ""
    return f"{domain.certificate_state}, {minute(domain.certificate_at)}{detail}"
