"""`redbot`, for hosts that are in no DNS: all names mean this machine. Runs in an environment of its own."""

import sys

import thor.dns
from redbot.cli import main

_lookup = thor.dns._lookup
thor.dns._lookup = lambda host, port, kind: _lookup(b"127.0.0.1", port, kind)
sys.exit(main())
