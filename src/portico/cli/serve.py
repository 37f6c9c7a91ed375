"""`portico serve`: an app for as long as the command runs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import click

from portico.cli import options
from portico.cli.progress import Progress
from portico.cli.reading import Reader, spec_of
from portico.cli.reload import Reloader, Served, Watcher
from portico.cli.resolving import advise
from portico.cli.spawn import Attachment
from portico.cli.terminal import Terminal, marked, marked_domains
from portico.client.connect import connect
from portico.client.control import ControlClient
from portico.client.settings import load_settings
from portico.client.stream import EventStream
from portico.client.upload import Uploader
from portico.model import errors
from portico.model.naming import check_dev_suffix
from portico.model.settings import Settings
from portico.wire.control import Created, Ended, EndpointInfo, EphemeralRequest, LogLine
from portico.wire.reading import ReadRequest

_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
_GOODBYES = {
    "stopped": "The app was stopped.",
    "replaced": "Another `portico serve` has taken the app's place.",
    "server_stopped": "The server has ended.",
}


@click.command(short_help="Run an app for as long as this command runs.")
@options.reference
@options.environment
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    envvar="PORTICO_SERVE_TIMEOUT",
    help="End after S seconds.",
)
@click.option("--reload/--no-reload", default=True, help="Reload the app when its files change (default).")
@options.timestamps
def serve(
    ref: str,
    module: bool,
    name: str | None,
    environment: str | None,
    timeout: float | None,
    reload: bool,
    timestamps: bool,
) -> None:
    """Run the app in REF (file.py, file.py::app, or -m pkg.mod) for as long as this command runs.

    Prints each URL on a line of its own, then what the containers print. Ctrl-C ends it.
    """
    dev_suffix = check_dev_suffix(os.environ.get("PORTICO_DEV_SUFFIX") or os.environ.get("MODAL_DEV_SUFFIX") or "dev")
    for number in _END_SIGNALS:
        signal.signal(number, signal.default_int_handler)  # all of them end it as Ctrl-C does
    session = _Session(
        terminal=Terminal.standard(),
        settings=load_settings(),
        client=connect(environment),
        request=options.read_request(ref, module, name),
        dev_suffix=dev_suffix,
        timeout=timeout,
        reload=reload,
        timestamps=timestamps,
    )
    try:
        session.run()
    except KeyboardInterrupt:
        if not session.serving:
            raise  # interrupted before there was anything to end: that is no clean end


class _Session:
    """One run of the command, from the file to the end of its app."""

    def __init__(
        self,
        *,
        terminal: Terminal,
        settings: Settings,
        client: ControlClient,
        request: ReadRequest,
        dev_suffix: str,
        timeout: float | None,
        reload: bool,
        timestamps: bool,
    ) -> None:
        self.serving = False
        self._terminal = terminal
        self._settings = settings
        self._client = client
        self._request = request
        self._dev_suffix = dev_suffix
        self._timeout = timeout
        self._reload = reload
        self._timestamps = timestamps
        self._urls: set[str] = set()
        self._app_id: str | None = None

    def run(self) -> None:
        """Serve until the app ends, or KeyboardInterrupt. Whatever happens, what was started here is gone after it."""
        roam = not os.environ.get("PORTICO_LISTEN")
        with (
            Attachment(self._settings, self._terminal, own=True, roam=roam, client=self._client) as server,
            Reader() as reader,
            contextlib.ExitStack() as stack,
        ):
            reader.ask(self._request)
            server.begin()  # while the file is read
            reply = reader.answer()
            spec = spec_of(reply, self._terminal)
            server.ready()
            uploader = Uploader(server.client)
            bundle = uploader.push(uploader.bundle(reply.sources), reply.sources)
            request = EphemeralRequest(spec=spec, bundle=bundle, name=self._request.name, dev_suffix=self._dev_suffix)
            events = stack.enter_context(server.client.ephemeral(request))
            self._follow(events, server, reader, uploader, Served.of(reply, bundle), stack)

    def _follow(
        self,
        events: EventStream,
        server: Attachment,
        reader: Reader,
        uploader: Uploader,
        served: Served,
        stack: contextlib.ExitStack,
    ) -> None:
        progress = Progress(self._terminal)
        stack.callback(progress.close)
        for event in events:
            if isinstance(event, LogLine):
                self._terminal.log(event, timestamps=self._timestamps)
            elif isinstance(event, Created):
                self.serving, self._app_id = True, event.app_id
                stack.callback(self._stop_app, server)
                self._created(event, server)
                if self._reload:
                    stack.callback(self._watch(server, reader, uploader, served, event.app_id).stop)
            elif isinstance(event, Ended):
                self._ended(event.reason)
                return
            else:
                progress.show(event)
        raise errors.ConnectionError("The server has gone away.", hint="See its log.")

    def _created(self, event: Created, server: Attachment) -> None:
        self._print_urls(event.endpoints)
        if not event.endpoints:
            self._terminal.warn("The app has no web endpoint, so there is no URL.")
        self._terminal.note(f"Serving {event.app}; Ctrl-C ends it.")
        if self._timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, self._timeout)
        if event.endpoints:
            url = event.endpoints[0].url
            threading.Thread(target=advise, args=(self._terminal, url, server), daemon=True).start()

    def _print_urls(self, endpoints: list[EndpointInfo]) -> None:
        for endpoint in endpoints:
            for line in (marked(endpoint), *marked_domains(endpoint)):
                if line not in self._urls:
                    self._urls.add(line)
                    self._terminal.result(line)

    def _watch(self, server: Attachment, reader: Reader, uploader: Uploader, served: Served, app_id: str) -> Watcher:
        reloader = Reloader(
            client=server.client,
            reader=reader,
            uploader=uploader,
            app_id=app_id,
            request=self._request,
            served=served,
            terminal=self._terminal,
            on_deployed=lambda event: self._print_urls(event.endpoints),
        )
        watcher = Watcher(reloader, self._terminal, without=[self._settings.home])
        watcher.start()
        return watcher

    def _ended(self, reason: str) -> None:
        self._app_id = None
        text = _GOODBYES.get(reason, f"The app has ended: {reason}.")
        if reason in ("stopped", "complete"):
            self._terminal.note(text)
            return
        raise errors.ConflictError(text) if reason == "replaced" else errors.ConnectionError(text)

    def _stop_app(self, server: Attachment) -> None:
        """Whatever the reason: when we return, the app has ended, also on a server that goes on."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends us at once, and our server with us
        for number in _END_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self._app_id is not None:
            with contextlib.suppress(errors.Error):
                server.client.stop_app(self._app_id)
