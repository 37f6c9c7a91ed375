"""RFC 6455 and 7692 through the ingress as against the bare container: the case families of the Autobahn test suite.

Each case is a byte stream that a client sends to an echo server. What comes back through the ingress has to be, byte
for byte, what comes back from the container's own socket; and that has to be what the standard says. The suite itself,
which needs Python 2.7, runs with `make conformance`.
"""

from __future__ import annotations

import base64
import os
import random
import select
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance import bare
from tests.e2e.conftest import PATIENCE, Machine

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KIB = 1024
DEFLATE = "permessage-deflate"
TAIL = b"\0\0\xff\xff"
APP = Path(bare.__file__).with_name("echo.py")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame, masked."""
    first, size = opcode | 0x80 * fin | rsv << 4, len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    mask = b"\x37\xfa\x21\x3d"
    key = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return head + mask + masked


def close(code: int | None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def fragments(opcode: int, *parts: bytes, between: bytes = b"") -> bytes:
    """A message in several frames, with these bytes between each two of them."""
    last = len(parts) - 1
    return between.join(frame(0 if n else opcode, part, fin=n == last) for n, part in enumerate(parts))


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@dataclass(frozen=True)
class Case:
    """What the client sends; what has to come back; the code of the server's Close."""

    name: str
    sent: bytes
    back: tuple[tuple[int, bytes], ...] = ()
    code: int | None = 1000
    closes: bool = True  # the client closes when all has come back
    chop: int = 0  # bytes per write; 0: all at once
    extension: str = ""


def echoed(name: str, opcode: int, payload: bytes, *, chop: int = 0, sent: bytes | None = None) -> Case:
    """A message that has to come back."""
    return Case(name, frame(opcode, payload) if sent is None else sent, ((opcode, payload),), chop=chop)


def failed(name: str, sent: bytes, code: int = 1002, back: tuple[tuple[int, bytes], ...] = ()) -> Case:
    """What the server has to end the connection for."""
    return Case(name, sent, back, code, closes=False)


def framing() -> Iterator[Case]:
    for size in (0, 125, 126, 127, 128, 65535, 65536):
        yield echoed(f"1.1 text {size}", TEXT, b"*" * size)
        yield echoed(f"1.2 binary {size}", BINARY, b"\xfe" * size)
    yield echoed("1.1.8 text in chops", TEXT, b"*" * 65536, chop=997)
    yield echoed("1.2.8 binary byte by byte", BINARY, b"\xfe" * 300, chop=1)


def pings() -> Iterator[Case]:
    for number, payload in enumerate((b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125)):
        yield echoed(f"2.{number + 1} ping", PONG, payload, sent=frame(PING, payload))
    yield echoed("2.6 ping byte by byte", PONG, b"\xfe" * 125, sent=frame(PING, b"\xfe" * 125), chop=1)
    yield failed("2.5 ping of 126", frame(PING, b"\xfe" * 126))
    yield Case("2.7 pong that nobody asked for", frame(PONG, b"nuts"))
    several = [b"payload-%d" % number for number in range(10)]
    sent = b"".join(frame(PING, payload) for payload in several)
    yield Case("2.10 ten pings", sent, tuple((PONG, payload) for payload in several))


def reserved() -> Iterator[Case]:
    for bits in range(1, 8):
        yield failed(f"3.{bits} reserved bits", frame(TEXT, b"nuts", rsv=bits))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield failed(f"4 opcode {opcode}", frame(opcode, b"nuts") + frame(PING))


def fragmentation() -> Iterator[Case]:
    two = (b"fragment1", b"fragment2")
    yield failed("5.1 ping in fragments", fragments(PING, *two))
    yield failed("5.2 pong in fragments", fragments(PONG, *two))
    yield echoed("5.3 text in fragments", TEXT, b"".join(two), sent=fragments(TEXT, *two))
    yield echoed("5.5 text in fragments, byte by byte", TEXT, b"".join(two), sent=fragments(TEXT, *two), chop=1)
    sent = fragments(TEXT, *two, between=frame(PING, b"ping"))
    yield Case("5.6 ping between fragments", sent, ((PONG, b"ping"), (TEXT, b"".join(two))))
    yield Case("5.8 the same, byte by byte", sent, ((PONG, b"ping"), (TEXT, b"".join(two))), chop=1)
    yield failed("5.9 continuation of nothing", frame(CONTINUATION, b"nuts"))
    yield failed("5.13 continuation of nothing, not final", frame(CONTINUATION, b"nuts", fin=False))
    yield failed("5.18 text in a text", frame(TEXT, b"one", fin=False) + frame(TEXT, b"two"))
    five = tuple(b"fragment%d" % number for number in range(5))
    sent = fragments(TEXT, *five, between=frame(PING, b"ping"))
    yield Case("5.19 five fragments", sent, (*[(PONG, b"ping")] * 4, (TEXT, b"".join(five))))


def utf8() -> Iterator[Case]:
    kosme = "κόσμε".encode()
    yield echoed("6.1 empty", TEXT, b"", sent=fragments(TEXT, b"", b"", b""))
    yield echoed("6.2.1 valid", TEXT, "Hello-µ@ßöäüàá-UTF-8!!".encode())
    yield echoed("6.2.3 valid, a byte a frame", TEXT, kosme, sent=fragments(TEXT, *cut(kosme, 1)))
    for name, text in (
        ("6.7", "\0"),
        ("6.9", "\uffff"),
        ("6.14", "\U0001ffff"),
        ("6.22", "\U0010fffe"),
        ("6.23", "\ufffd"),
    ):
        yield echoed(f"{name} {text!a}", TEXT, text.encode())
    bad = {
        "6.3 in the middle": kosme + b"\xed\xa0\x80edited",
        "6.6 cut off": kosme[:-1],
        "6.8 a byte of 5": b"\xf8\x88\x80\x80\x80",
        "6.10 beyond Unicode": b"\xf4\x90\x80\x80",
        "6.11 a lone continuation": b"\x80",
        "6.12 only continuations": b"\x80\xbf\x80\xbf",
        "6.13 starts without end": b"\xc0 \xc1 \xc2 ",
        "6.16 FE": b"\xfe\xfe\xff\xff",
        "6.18 overlong": b"\xc0\xaf",
        "6.20 a surrogate": b"\xed\xad\xbf",
        "6.21 a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    }
    for name, payload in bad.items():
        yield failed(name, frame(TEXT, payload), 1007)
    yield failed("6.3.2 in a fragment", fragments(TEXT, kosme, b"\xed\xa0\x80", b"edited"), 1007)


def closing() -> Iterator[Case]:
    yield Case("7.1.1 close", frame(TEXT, b"nuts"), ((TEXT, b"nuts"),))
    yield Case("7.1.2 two closes", close(1000) + close(1000), closes=False)
    yield Case("7.1.3 ping behind a close", close(1000) + frame(PING), closes=False)
    yield Case("7.1.4 text behind a close", close(1000) + frame(TEXT, b"late"), closes=False)
    yield Case("7.3.1 empty close", close(None), code=None, closes=False)
    yield failed("7.3.2 close of one byte", frame(CLOSE, b"a"))
    yield Case("7.3.4 close with a reason", close(1000, b"Hello World!"), closes=False)
    yield Case("7.3.5 close with a long reason", close(1000, b"*" * 123), closes=False)
    yield failed("7.3.6 close that is too long", close(1000, b"*" * 124))
    yield failed("7.5.1 a reason that is no UTF-8", close(1000, b"\xce\xba\xed\xa0\x80"), 1007)
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield Case(f"7.7 code {code}", close(code), code=code, closes=False)
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield failed(f"7.9 code {code}", close(code))


def large() -> Iterator[Case]:
    for size in (64 * KIB, 256 * KIB, 1024 * KIB, 2048 * KIB):
        yield echoed(f"9.1 text {size}", TEXT, b"*" * size)
        yield echoed(f"9.2 binary {size}", BINARY, b"\xfe" * size)
    whole = bytes(256 * KIB)
    for size in (KIB, 4 * KIB, 64 * KIB):
        yield echoed(f"9.4 binary in frames of {size}", BINARY, whole, sent=fragments(BINARY, *cut(whole, size)))
    for size in (64, 256, 2048):
        yield echoed(f"9.5 text in chops of {size}", TEXT, b"*" * 128 * KIB, chop=size)
    small = frame(TEXT, b"*" * 16) * 500
    yield Case("9.7 many small messages", small, ((TEXT, b"*" * 16),) * 500)
    yield echoed("10.1 frames of 1300", TEXT, b"*" * 65536, sent=fragments(TEXT, *cut(b"*" * 65536, 1300)))


def compressed() -> Iterator[Case]:
    """Messages of several sizes, on one connection each; with and without memory of the ones before."""
    rand = random.Random(7692)
    words = " ".join(rand.choice(("nut", "wal", "hazel", "pea", "κόσμε")) for _ in range(40_000)).encode()
    noise = rand.randbytes(128 * KIB)
    for extension in (
        DEFLATE,
        f"{DEFLATE}; client_no_context_takeover; server_no_context_takeover",
        f"{DEFLATE}; server_max_window_bits=9; client_max_window_bits",
        f"{DEFLATE}; server_max_window_bits=15; client_max_window_bits=9",
    ):
        for opcode, source, sizes in (
            (TEXT, words, (0, 16, 64, 1024, 65536)),
            (BINARY, noise, (16, 4096, 65536, 131072)),
        ):
            deflater = zlib.compressobj(wbits=-9)
            sent, back = b"", []
            for size in sizes:
                payload = source[:size].decode(errors="ignore").encode() if opcode == TEXT else source[:size]
                if "client_no_context" in extension:
                    deflater = zlib.compressobj(wbits=-9)
                packed = (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
                sent += frame(opcode, packed, rsv=4)
                back.append((opcode, payload))
            yield Case(f"12 {extension} {opcode}", sent, tuple(back), extension=extension)


CASES = [*framing(), *pings(), *reserved(), *fragmentation(), *utf8(), *closing(), *large(), *compressed()]


class Echo:
    """An echo server: its way through the ingress, and the socket of its container."""

    def __init__(self, machine: Machine, url: str) -> None:
        self._machine = machine
        self._host = url.partition("//")[2]
        self._container = bare.address(machine, url)

    def through(self, case: Case) -> bytes:
        """What comes back through the ingress."""
        return self._play(socket.create_connection(("127.0.0.1", self._machine.port), timeout=PATIENCE), case)

    def bare(self, case: Case) -> bytes:
        """What comes back from the container itself."""
        return self._play(bare.connect(self._container), case)

    def _play(self, connection: socket.socket, case: Case) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET / HTTP/1.1",
            f"Host: {self._host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Extensions: {case.extension}"] if case.extension else []),
        ]
        with connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            head, _, received = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert (DEFLATE.encode() in head) == bool(case.extension)
            parts = [received, *self._exchange(connection, case)]
        return b"".join(parts)

    def _exchange(self, connection: socket.socket, case: Case) -> Iterator[bytes]:
        """Send and receive side by side: an echo server that nobody reads from stops reading."""
        connection.setblocking(False)
        waiting = cut(case.sent, case.chop or len(case.sent))
        received, closing = b"", False
        while True:
            if case.closes and not closing and not waiting and len(frames(received)) >= len(case.back):
                waiting, closing = [close(1000)], True
            readable, writable, _ = select.select([connection], [connection] * bool(waiting), [], PATIENCE)
            assert readable or writable, "nothing comes any more"
            if readable:
                try:
                    data = connection.recv(1 << 20)
                except ConnectionResetError:
                    return
                if not data:
                    return
                received += data
                yield data
                if not closing and any(kind == CLOSE for _, kind, _ in frames(received)):
                    waiting, closing = [close(1000)], True  # as a client has to
            elif writable:
                try:
                    rest = waiting[0][connection.send(waiting[0]) :]
                except (BrokenPipeError, ConnectionResetError):
                    waiting = []
                    continue
                waiting[:1] = [rest] if rest else []


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """A server's frames that are complete: first byte, opcode, payload."""
    found, start = [], 0
    while len(data) >= start + 2:
        first, size, at = data[start], data[start + 1] & 0x7F, start + 2
        if size > 125:
            at = start + (4 if size == 126 else 10)
            size = int.from_bytes(data[start + 2 : at], "big")
        start = at + size
        if len(data) < start:
            break
        found.append((first, first & 15, data[at:start]))
    return found


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """What these frames say: fragments joined, packed ones unpacked."""
    found: list[tuple[int, bytes]] = []
    inflater = zlib.decompressobj(wbits=-15)
    packed, begun, opcode = False, b"", 0
    for first, kind, payload in frames(data):
        if kind > 7:
            found.append((kind, payload))
            continue
        if kind:
            opcode, packed, begun = kind, bool(first & 0x40), b""
        begun += payload
        if first & 0x80:
            found.append((opcode, inflater.decompress(begun + TAIL) if packed else begun))
    return found


@pytest.fixture(scope="module")
def urls(shared: Machine) -> dict[str, str]:
    """Deployed once."""
    shared.write("echo.py", APP.read_text())
    return shared.deploy("echo.py")


@pytest.fixture(scope="module", params=["asgi", "wsgi", "program"])
def echo(request: pytest.FixtureRequest, shared: Machine, urls: dict[str, str]) -> Echo:
    """An echo server of each kind."""
    return Echo(shared, urls[request.param])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_ingress_changes_nothing(echo: Echo, case: Case) -> None:
    """Not a byte; and it is what the standard says."""
    bare = echo.bare(case)
    assert echo.through(case) == bare
    *said, (kind, payload) = messages(bare)
    assert kind == CLOSE
    assert int.from_bytes(payload[:2], "big") == (case.code or 0)
    assert said == list(case.back)
