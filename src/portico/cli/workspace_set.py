"""`portico workspace set`."""

from __future__ import annotations

import click
import msgspec

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.connect import connect
from portico.model import errors
from portico.model.policy import Setting, check_value
from portico.wire.control import SettingInfo

INHERIT = "inherit"


@click.command("set")
@click.argument("setting", type=click.Choice([setting.value for setting in Setting]))
@click.argument("value")
@click.option("-e", "--env", "environment", metavar="NAME", help="Only for this environment.")
@click.option("--app", metavar="APP", help="Only for this app.")
@click.option("--function", metavar="NAME", help="Only for this function of the app.")
@options.as_json
def workspace_set(
    setting: str, value: str, environment: str | None, app: str | None, function: str | None, as_json: bool
) -> None:
    """Set SETTING to VALUE, for the whole workspace or for what is named; `inherit` takes it back.

    \b
    require-proxy-auth  on, off      requests need a proxy token
    rate-limit          N, off       requests a second; bursts of five seconds' worth pass
    max-body            10MiB, 4GiB  size of a request's body
    """
    terminal = Terminal.standard()
    if function and not app:
        raise click.UsageError("--function needs --app.")
    client = connect(environment)
    wanted = None if value == INHERIT else _checked(Setting(setting), value)
    place = client.environment if environment or app else None
    change = SettingInfo(setting=setting, value=wanted, environment=place, app=app, function=function)
    found = client.change_setting(change)
    if as_json:
        terminal.result(msgspec.json.encode(found).decode())
        return
    where = "/".join(name for name in (place, app, function) if name) or "the workspace"
    terminal.result(f"✓ {setting} of {where}: {value}")


def _checked(setting: Setting, value: str) -> str:
    try:
        return check_value(setting, value)
    except errors.InvalidError as error:
        raise click.BadParameter(error.message) from None
