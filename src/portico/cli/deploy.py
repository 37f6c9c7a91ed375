"""`portico deploy`: an app that stays."""

from __future__ import annotations

import json

import click

from portico.cli import options
from portico.cli.progress import Progress
from portico.cli.reading import Reader, spec_of
from portico.cli.resolving import advise
from portico.cli.spawn import Attachment
from portico.cli.terminal import Terminal, marked, marked_domains
from portico.client.connect import connect
from portico.client.control import ControlClient
from portico.client.settings import load_settings
from portico.client.stream import EventStream
from portico.client.upload import Uploader
from portico.model import errors
from portico.model.naming import check_tag
from portico.wire.control import Deployed, DeployRequest, LogLine


def _checked_tag(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value and check_tag(value)
    except errors.InvalidError as error:
        raise click.BadParameter(f"{error.message} {error.hint}") from None


@click.command(short_help="Put an app up for good, or bring it up to date.")
@options.reference
@options.environment
@click.option("--tag", callback=_checked_tag, metavar="TAG", help="A word to remember this version by.")
@click.option(
    "--strategy",
    type=click.Choice(["rolling", "recreate"]),
    default="rolling",
    help="Whether old containers finish their requests, or end at once.",
)
@click.option("--allow-missing-gpu", is_flag=True, help="Deploy although this machine lacks a GPU that is asked for.")
@click.option("--stream-logs", is_flag=True, help="Then show the app's logs, until Ctrl-C.")
@options.timestamps
@options.as_json
def deploy(
    ref: str,
    module: bool,
    name: str | None,
    environment: str | None,
    tag: str | None,
    strategy: str,
    allow_missing_gpu: bool,
    stream_logs: bool,
    timestamps: bool,
    as_json: bool,
) -> None:
    """Deploy the app in REF (file.py, file.py::app, or -m pkg.mod). Its URLs stay.

    The new version takes over when its containers have proven ready; if they do not, the old one stays.
    """
    terminal = Terminal.standard()
    with Reader() as reader:
        reply = reader.read(options.read_request(ref, module, name))
    spec = spec_of(reply, terminal)
    if not (name or spec.name):
        raise errors.InvalidError(
            "The app has no name.", hint='Name it in the file, modal.App("my-app"), or pass --name.'
        )
    client = connect(environment)
    with Attachment(load_settings(), terminal, own=False, roam=False, client=client) as server:
        server.begin()
        server.ready()
    uploader = Uploader(server.client)
    bundle = uploader.push(uploader.bundle(reply.sources), reply.sources)
    request = DeployRequest(
        spec=spec, bundle=bundle, name=name, tag=tag, allow_missing_gpu=allow_missing_gpu, strategy=strategy
    )
    deployed = follow(server.client.deploy(request), terminal)
    terminal.result(json.dumps(summary(deployed)) if as_json else report(deployed))
    if deployed.endpoints:
        advise(terminal, deployed.endpoints[0].url, server)
    if stream_logs:
        _stream_logs(server.client, deployed.app_id, terminal, timestamps, as_json)


def follow(events: EventStream, terminal: Terminal) -> Deployed:
    """Show how it comes along, until it is deployed; raises where it fails."""
    progress = Progress(terminal)
    try:
        with events:
            for event in events:
                progress.show(event)
                if isinstance(event, Deployed):
                    return event
    finally:
        progress.close()
    raise errors.ConnectionError("The server has gone away before it was done.", hint="See its log.")


def summary(deployed: Deployed) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "app": deployed.app,
        "version": deployed.version,
        "endpoints": [
            {
                "function": endpoint.function,
                "url": endpoint.url,
                "protected": endpoint.protected,
                "custom_urls": endpoint.custom_urls,
            }
            for endpoint in deployed.endpoints
        ],
        "unchanged": deployed.unchanged,
    }


def report(deployed: Deployed) -> str:
    """What is printed without it."""
    verb = "Unchanged" if deployed.unchanged else "Created"
    lines = []
    for endpoint in deployed.endpoints:
        lines.append(f"{verb} web function {endpoint.function} => {marked(endpoint)}")
        lines += [f"Custom domain for {endpoint.function} => {url}" for url in marked_domains(endpoint)]
    if deployed.unchanged:
        return "\n".join([*lines, f"✓ App {deployed.app} is unchanged (version {deployed.version})."])
    return "\n".join([*lines, f"✓ App deployed in {deployed.seconds:.3f}s!"])


def _stream_logs(client: ControlClient, app_id: str, terminal: Terminal, timestamps: bool, as_json: bool) -> None:
    with client.logs(app_id, follow=True, tail=0) as events:
        for event in events:
            if isinstance(event, LogLine):
                terminal.log(event, timestamps=timestamps, beside=as_json)
