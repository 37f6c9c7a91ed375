"""The measurements that are named, or all: `python -m bench [NAME…] [--quick]`, one after the other."""

import contextlib
import sys

from bench import bodies, calls, cold, idle_memory, idle_websockets, profile, reload, streaming, throughput, websocket
from bench.stand import stand

ALL = (cold, reload, throughput, idle_memory, calls, websocket, bodies, streaming, idle_websockets, profile)
BY_NAME = {module.__name__.partition(".")[2]: module.main for module in ALL}

names = [argument for argument in sys.argv[1:] if argument != "--quick"]
if unknown := set(names) - set(BY_NAME):
    sys.exit(f"There is no measurement {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}.")
quick = "--quick" in sys.argv
with stand() if quick else contextlib.nullcontext():
    for name in names or BY_NAME:
        BY_NAME[name](quick)
