"""The first file that a template process runs: sets `sys.path`, then starts the template. Standard library only.

    boot.py --fd N --path DIR... --runtime DIR...

On `sys.path` come the standard library, what the user installed (--path), what else the interpreter has, and last the
runtime's own dependencies (--runtime): where the user installed a package, the user's version is the one that counts.
"""

from __future__ import annotations

import argparse
import site
import sys


def order(own: list[str], sites: list[str], installed: list[str], runtime: list[str]) -> list[str]:
    """`sys.path` of a container; `own` is what the interpreter starts with, `sites` its own site-packages."""
    first = next((place for place, entry in enumerate(own) if entry in sites), len(own))
    return list(dict.fromkeys([*own[:first], *installed, *own[first:], *runtime]))


def main() -> None:
    """Parse, set the path, go on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--path", nargs="*", default=[])
    parser.add_argument("--runtime", nargs="*", default=[])
    arguments = parser.parse_args()

    del sys.path[0]  # this file's own folder: its modules must not be importable under their short names
    own, installed = list(sys.path), []
    for folder in arguments.path:
        before = len(sys.path)
        if folder not in own:  # else its .pth files have been read
            site.addsitedir(folder)
        installed += [folder, *sys.path[before:]]
    sys.path[:] = order(own, site.getsitepackages(), installed, arguments.runtime)

    from portico.runtime import template  # only now can the package be found

    template.main(arguments.fd)


if __name__ == "__main__":
    main()
