"""The ASGI app of a function that is called: reads the call, runs the function, answers with frames.

Async functions run on the loop, others in a worker thread, or on the server's own (`plain`). A thread cannot be ended:
when its caller leaves, the input goes on until the thread is done.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar, cast

from portico.model.errors import Error, ExecutionError, InternalFailure, InvalidError
from portico.model.spec import FunctionSpec
from portico.runtime import plain
from portico.runtime.asgi import Receive, Scope, Send
from portico.runtime.threads import Threads
from portico.runtime.tracebacks import is_ours, user_traceback
from portico.wire import codec, raised
from portico.wire.calls import CONTENT_TYPE, FAILED_HEADER, Decoder, Kind, Message, frames, size

T = TypeVar("T")
_END: Final = object()
_BEGUN: Final = (b"content-type", CONTENT_TYPE)


class Called:
    """One function, as an ASGI app."""

    def __init__(self, spec: FunctionSpec, function: Callable[..., Any]) -> None:
        self._spec = spec
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._threads = Threads(spec.concurrency.max_inputs, spec.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        assert scope["type"] == "http", "functions are called over HTTP"
        message = await _read(receive)
        if message is None:
            return  # the caller left before it had said everything
        if message.kind is Kind.ITERATE:
            await self._iterate(message, send)
        else:
            await self._call(message, send)

    # -- one value ------------------------------------------------------------------------------------------------
    async def _call(self, message: Message, send: Send) -> None:
        try:
            if self._spec.is_generator:
                raise InvalidError(
                    "A generator function cannot be called with `.remote(...)`. Use `.remote_gen(...)` instead."
                )
            args, kwargs = self._arguments(message)
            result = await self._run(args, kwargs)
            kind, payload = Kind.VALUE, codec.dump(result, f"What {self._spec.name} returned")
        except (Exception, SystemExit) as error:
            kind, payload = Kind.ERROR, [self._failure(error)]
        headers = [_BEGUN, (b"content-length", b"%d" % size(payload))]
        if kind is Kind.ERROR:
            headers.append((FAILED_HEADER, b"1"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pieces = frames(kind, payload)
        following = next(pieces)
        for piece in pieces:
            await send({"type": "http.response.body", "body": following, "more_body": True})
            following = piece
        await send({"type": "http.response.body", "body": following})

    async def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_async:
            return await self._function(*args, **kwargs)
        away = plain.here()
        if away is None:
            result = await self._in_thread(lambda: self._function(*args, **kwargs))
        else:
            result = away.call(self._function, *args, **kwargs)
        if not inspect.iscoroutine(result):
            return result
        return await (result if away is None else away.at_home(result))

    # -- many values ----------------------------------------------------------------------------------------------
    async def _iterate(self, message: Message, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [_BEGUN]})

        async def say(kind: Kind, payload: Sequence[bytes] = (b"",), *, more: bool = True) -> None:
            for piece in frames(kind, payload):
                await send({"type": "http.response.body", "body": piece, "more_body": more})

        try:
            async with aclosing(self._values(message)) as values:
                async for value in values:
                    await say(Kind.VALUE, codec.dump(value, f"What {self._spec.name} yielded"))
        except (Exception, SystemExit) as error:
            await say(Kind.ERROR, [self._failure(error)])
            await send({"type": "http.response.body", "body": b""})
        else:
            await say(Kind.END, more=False)

    async def _values(self, message: Message) -> AsyncGenerator[Any, None]:
        if not self._spec.is_generator:
            raise InvalidError(
                "A non-generator function cannot be called with `.remote_gen(...)`. Use `.remote(...)` instead."
            )
        args, kwargs = self._arguments(message)
        made = self._function(*args, **kwargs)
        values = made if hasattr(made, "__aiter__") else self._in_threads(iter(made))
        try:
            async for value in values:
                yield value
        finally:
            if hasattr(values, "aclose"):
                await values.aclose()

    async def _in_threads(self, values: Iterator[Any]) -> AsyncGenerator[Any, None]:
        try:
            while (value := await self._in_thread(lambda: next(values, _END))) is not _END:
                yield value
        finally:
            if isinstance(values, Generator):
                await self._in_thread(values.close)

    # -- shared ---------------------------------------------------------------------------------------------------
    def _arguments(self, message: Message) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments = codec.load(message.payload, f"The arguments of {self._spec.name}")
        return cast("tuple[tuple[Any, ...], dict[str, Any]]", arguments)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Its result. A cancellation waits for the thread, for until then the slot is not free."""
        result, error = await self._threads.run(work)
        if error is not None:
            raise error
        return cast(T, result)

    def _failure(self, error: BaseException) -> bytes:
        """The exception for the caller; its text for the log."""
        if not isinstance(error, Error):
            cause, text = user_traceback(error)
            sys.stderr.write(f"{self._spec.name} raised {cause}\n{text.rstrip()}\n")
        if isinstance(error, SystemExit):
            error = ExecutionError(f"{self._spec.name} has called sys.exit({error.code!r}).")
        return raised.dump(error, is_ours)


async def _read(receive: Receive) -> Message | None:
    decoder = Decoder()
    messages: list[Message] = []
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        messages += decoder.feed(event.get("body", b""))
        if not event.get("more_body", False):
            break
    if len(messages) != 1 or not decoder.between or messages[0].kind not in (Kind.CALL, Kind.ITERATE):
        raise InternalFailure("What came is not one call.")
    return messages[0]
