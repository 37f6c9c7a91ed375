"""`python -m tests.fuzz TARGET SECONDS`: look for bytes that break a promise, guided by the branches that they reach.

What is found is written to `fuzz-found/`; put it into the target's corpus, so that the tests have it from then on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["portico.ingress", "portico.wire", "h11"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

FOUND = Path("fuzz-found")


def main() -> None:
    target, seconds = sys.argv[1], int(sys.argv[2])
    corpus = Path(__file__).parent / "corpus" / target
    grown = FOUND / target  # what reaches new branches; what is in the repository stays small
    grown.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
        f"-artifact_prefix={grown}-",
        "-print_final_stats=1",
    ]
    words = Path(__file__).parent / "words.txt"
    atheris.Setup([sys.argv[0], *options, f"-dict={words}", str(grown), str(corpus)], TARGETS[target])
    atheris.Fuzz()


main()
