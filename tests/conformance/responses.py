"""What redbot says of responses through the ingress, and of those of the bare containers: `make conformance`.

redbot asks for each page in several ways (ranges, conditions, compression), and judges what comes by RFC 9110, 9111 and
9112. Exit code 1 where it thinks worse of a page through the ingress, or finds fault with a page of the ingress itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.conformance import bare
from tests.conformance.__main__ import ROOT, relay
from tests.e2e.conftest import Machine

PYTHON = ROOT / ".venv-redbot" / "bin" / "python"
PAGES = {
    "pages": ("/json", "/file", "/stream", "/moved", "/nothing", "/cookie", "/absent"),
    "files": ("/file.txt", "/", "/absent"),
}
OWN = ("http://nobody.localhost:{port}/", "http://localhost:{port}/v1/apps")  # no such host; no token
FAULTS = {"WARN", "BAD"}


async def judge(url: str) -> dict[str, str]:
    """The level of each note on the page."""
    script = Path(__file__).with_name("redbot_at.py")
    redbot = await asyncio.create_subprocess_exec(
        str(PYTHON), str(script), "-o", "har", url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await redbot.communicate()
    notes = json.loads(out)["log"]["entries"][0]["_red_messages"]
    if not notes:
        raise SystemExit(f"redbot says nothing about {url}")
    return {note["note_id"]: note["level"] for note in notes}


async def compare(machine: Machine, function: str, url: str) -> int:
    """Say what is worse for the pages of one function through the ingress; how many notes are."""
    where = await asyncio.to_thread(bare.address, machine, url)
    door = await relay(where, "localhost")
    count = 0
    for page in PAGES[function]:
        through = await judge(url + page)
        alone = await judge(f"http://localhost:{door.sockets[0].getsockname()[1]}{page}")
        added, gone = through.items() - alone.items(), alone.items() - through.items()
        worse = {note for note in added if note[1] in FAULTS} | {note for note in gone if note[1] not in FAULTS}
        print(f"{function}{page}: {len(through)} notes through the ingress, {len(alone)} bare, {len(worse)} are worse")
        for note in sorted(worse):
            print(f"  {note[1]} {note[0]} {'through the ingress only' if note in added else 'bare only'}")
        count += len(worse)
    door.close()
    return count


async def find_fault(url: str) -> int:
    """Say what is wrong with a page of the ingress itself; how much is."""
    faults = [f"{level} {note}" for note, level in (await judge(url)).items() if level in FAULTS]
    print(f"{url}: {', '.join(faults) or 'no fault'}")
    return len(faults)


async def measure(machine: Machine) -> int:
    """Deploy the pages, and have them judged."""
    machine.write("website.py", Path(__file__).with_name("website.py").read_text())
    urls = await asyncio.to_thread(machine.deploy, "website.py")
    worse = sum([await compare(machine, function, urls[function]) for function in PAGES])
    return worse + sum([await find_fault(url.format(port=machine.port)) for url in OWN])


def main() -> int:
    if not PYTHON.exists():
        raise SystemExit("redbot is not there. Run: make conformance")
    with tempfile.TemporaryDirectory(prefix="portico-redbot-") as folder:
        machine = Machine(Path(folder))
        try:
            machine.up()
            return 1 if asyncio.run(measure(machine)) else 0
        finally:
            machine.close()


if __name__ == "__main__":
    sys.exit(main())
