"""The Autobahn test suite through the ingress and against the bare containers, case by case: `make conformance`.

Exit code 1 if a case does not end as well as it ends against the bare container. What fails there too is the library's
affair, and is shown. `CASES="12.*"` runs others: all of the compressed ones take hours.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance import bare
from tests.e2e.conftest import Machine

ROOT = Path(__file__).parents[2]
WSTEST = ROOT / ".venv-autobahn" / "bin" / "wstest"
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}  # the suite's own words; which of them may depend on the time it takes
CASES = [f"{family}.*" for family in (*range(1, 8), 9, 10)]
CASES += [f"12.{mode}.{size}" for mode in range(1, 6) for size in (1, 3)]  # a thousand compressed messages each
CASES += [f"13.{mode}.{size}" for mode in range(1, 8) for size in (1, 3)]
KINDS = ("asgi", "wsgi", "program")
Address = str | tuple[str, int]
Ends = dict[str, tuple[bool, str, int | None]]  # by case: passed or not, how it was closed, and with which code


async def relay(where: Address, host: str) -> asyncio.Server:
    """A port that leads there, for a suite that knows neither Unix sockets nor names that are in no DNS."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 18):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = asyncio.open_unix_connection(where) if isinstance(where, str) else asyncio.open_connection(*where)
        other_reader, other_writer = await there
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        named = [b"Host: " + host.encode() if line.lower().startswith(b"host:") else line for line in lines]
        other_writer.write(b"\r\n".join([first, *named]))
        await asyncio.gather(pipe(reader, other_writer), pipe(other_reader, writer))
        other_writer.close()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)


async def fuzz(folder: Path, doors: dict[str, asyncio.Server], cases: list[str]) -> dict[str, Ends]:
    """How each case ended at each of these doors."""
    servers = [
        {"agent": name, "url": f"ws://127.0.0.1:{door.sockets[0].getsockname()[1]}"} for name, door in doors.items()
    ]
    spec = {"outdir": str(folder / "reports"), "servers": servers, "cases": cases, "exclude-cases": []}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [str(WSTEST), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    suite = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    if await suite.wait():
        raise SystemExit("wstest failed")
    report = json.loads((folder / "reports" / "index.json").read_text())
    return {
        name: {
            case: (end["behavior"] in PASSED, end["behaviorClose"], end["remoteCloseCode"])
            for case, end in ends.items()
        }
        for name, ends in report.items()
    }


def compare(kind: str, ends: dict[str, Ends]) -> int:
    """Say how the cases of one kind ended; how many of them ended well only against the bare container."""
    through, alone = ends[f"{kind} through the ingress"], ends[f"{kind} bare"]
    passed, bare_passed = (sum(end[0] for end in each.values()) for each in (through, alone))
    print(
        f"{kind}: {passed} of {len(through)} cases pass through the ingress, {bare_passed} against the bare container"
    )
    for case, end in through.items():
        if end != alone[case] or not end[0]:
            print(f"  {case}: {end}, bare: {alone[case]}")
    return sum(end != alone[case] and alone[case][:2] == (True, "OK") for case, end in through.items())


async def measure(machine: Machine, cases: list[str]) -> int:
    """Deploy the echo servers, and let the suite loose on them."""
    machine.write("echo.py", Path(__file__).with_name("echo.py").read_text())
    urls = await asyncio.to_thread(machine.deploy, "echo.py")
    doors = {}
    for kind in KINDS:
        host = urls[kind].partition("//")[2]
        where = await asyncio.to_thread(bare.address, machine, urls[kind])
        doors[f"{kind} bare"] = await relay(where, host)
        doors[f"{kind} through the ingress"] = await relay(("127.0.0.1", machine.port), host)
    ends = await fuzz(machine.folder, doors, cases)
    for door in doors.values():
        door.close()
    return sum([compare(kind, ends) for kind in KINDS])


def main(cases: list[str]) -> int:
    """Run these cases, or those that take minutes."""
    if not WSTEST.exists():
        raise SystemExit("The Autobahn test suite is not there. Run: make conformance")
    with tempfile.TemporaryDirectory(prefix="portico-autobahn-") as folder:
        machine = Machine(Path(folder))
        machine.env["PORTICO_MAX_WEBSOCKET_MESSAGE"] = "unlimited"  # some cases have messages of 16 MiB
        try:
            machine.up()
            return 1 if asyncio.run(measure(machine, cases or CASES)) else 0
        finally:
            machine.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
