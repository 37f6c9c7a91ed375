"""The `portico` command: its verbs, and what becomes of errors.

Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from portico.cli.lazy import LazyGroup, Verb
from portico.cli.terminal import Terminal
from portico.model import errors
from portico.model.version import VERSION

INTERRUPTED = 130

_VERBS = {
    "serve": Verb("portico.cli.serve:serve", "Run an app for as long as this command runs, and reload it on changes."),
    "deploy": Verb("portico.cli.deploy:deploy", "Put an app up for good, or bring it up to date."),
    "run": Verb("portico.cli.run:run", "Run a function, or a local entrypoint, with an app that lives as long."),
    "app": Verb("portico.cli.app:app", "List, look at, stop and roll back apps; read their logs."),
    "secret": Verb("portico.cli.secret:secret", "Keep environment variables for functions."),
    "proxy-token": Verb("portico.cli.proxy_token:proxy_token", "Make, list and revoke tokens for endpoints."),
    "domain": Verb("portico.cli.domain:domain", "Register custom domains, and check their DNS."),
    "workspace": Verb("portico.cli.workspace:workspace", "Set who may call endpoints, and how much."),
    "environment": Verb("portico.cli.environment:environment", "Environments: apps that know nothing of each other."),
    "token": Verb("portico.cli.token:token", "Tokens with which other machines use this server."),
    "profile": Verb("portico.cli.profile:profile", "Which server the commands talk to."),
    "config": Verb("portico.cli.config:config", "Show what the commands go by; change the profile's environment."),
    "up": Verb("portico.cli.up:up", "Run the server."),
    "down": Verb("portico.cli.down:down", "End the server."),
    "doctor": Verb("portico.cli.doctor:doctor", "Check this machine, and say what to mend."),
}


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"portico {VERSION}")
        ctx.exit()


@click.group(cls=LazyGroup, verbs=_VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-V", "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
def cli() -> None:
    """Python functions as web endpoints, on machines that you own."""


def main() -> None:
    """The entry point of `portico` and `modal`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # what a container prints must not end us, whatever the locale
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. What goes wrong is said on stderr, in few words."""
    terminal = Terminal.standard()
    try:
        result = cli.main(list(arguments), prog_name=_program(), standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except errors.Error as error:
        terminal.error(error)
        return 1
    except BrokenPipeError:
        # Whoever read our output has had enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _unexpected(terminal, error)


def _unexpected(terminal: Terminal, error: Exception) -> int:
    if os.environ.get("PORTICO_TRACEBACK"):
        raise error
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    terminal.error(
        errors.InternalFailure(
            f"A fault of Portico itself: {text}", hint="Set PORTICO_TRACEBACK=1 to see where it comes from."
        )
    )
    return 1


def _program() -> str:
    return "modal" if os.path.basename(sys.argv[0]) == "modal" else "portico"
