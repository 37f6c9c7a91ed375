"""Requests per second with wrk: an async handler, a sync one, and a bare ASGI app, against what else serves the same.

The light peers are up together and take turns. Those that compute also when nobody asks take turns with Portico alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench import sides
from bench.load import Side, cpu, in_turns, portico, rate, ratio, shown
from bench.results import UNDER_LOAD, Goal, Run, Table
from bench.stand import APPS, Stand, get, stand

CONNECTIONS = (32, 256)
LIGHT = {"bare uvicorn": 0.97, "nginx → uvicorn": 1.0, "HAProxy → uvicorn": None, "Caddy → uvicorn": None}
HEAVY = {"Ray Serve": 15.0, "BentoML": 6.0, "LitServe": 6.0}


def main(run: Run) -> Iterator[Table]:
    """In turns: A B A B …; the ratio of each pair, and its median."""
    rounds, seconds = (1, 1) if run.quick else (8, 2)
    with stand() as here, contextlib.ExitStack() as stack:
        ours = _deployed(here, "warm_app.py")
        kinds = ["nginx", "HAProxy", "Caddy"] if run.peers else ["nginx"]
        others = {"bare uvicorn": stack.enter_context(sides.bare("bare:warm"))}
        others |= stack.enter_context(sides.behind(kinds, "bare:warm"))
        assert get(others["bare uvicorn"].port) == get(ours.port, ours.host)
        for connections in CONNECTIONS[: 1 if run.quick else None]:
            yield _light(ours, others, connections, rounds, seconds)


def ray_serve(run: Run) -> Iterator[Table]:
    """Ray Serve with one replica."""
    yield from _heavy("Ray Serve", run)


def bentoml(run: Run) -> Iterator[Table]:
    """BentoML with one worker."""
    yield from _heavy("BentoML", run)


def litserve(run: Run) -> Iterator[Table]:
    """LitServe with one worker."""
    yield from _heavy("LitServe", run)


def sync(run: Run) -> Iterator[Table]:
    """One input at a time in one container, against FastAPI's threads."""
    rounds, seconds = (1, 1) if run.quick else (8, 2)
    with stand() as here, sides.bare("bare:sync") as other:
        ours = _deployed(here, "sync_app.py")
        samples = in_turns({"portico": ours, "bare uvicorn": other}, rounds, connections=32, seconds=seconds)
    yield Table(
        "requests per second, sync handler, 32 connections",
        {name: shown(values) for name, values in samples.items()},
        (
            Goal(
                "requests/s, sync `def` handler, 32 connections",
                ratio(samples["portico"], samples["bare uvicorn"]),
                at_least=1.2,
                ours=rate(samples["portico"]),
                beside=f"{rate(samples['bare uvicorn'])}, bare uvicorn",
            ),
        ),
    )


def raw(run: Run) -> Iterator[Table]:
    """A bare ASGI app: the ingress in front of its container, and nginx in front of the same container."""
    rounds, seconds = (1, 1) if run.quick else (8, 2)
    with stand() as here:
        before = here.sockets()
        ours = _deployed(here, "raw_app.py")
        (container,) = here.sockets() - before
        with sides.proxy("nginx", container, ours.processes["app"]) as other:
            samples = in_turns({"portico": ours, "nginx": other}, rounds, connections=32, seconds=seconds)
    yield Table(
        "requests per second, bare ASGI app, 32 connections",
        {name: shown(values) for name, values in samples.items()},
        (
            Goal(
                "requests/s, bare ASGI app, 32 connections",
                ratio(samples["portico"], samples["nginx"]),
                at_least=0.85,
                ours=rate(samples["portico"]),
                beside=f"{rate(samples['nginx'])}, nginx → the same container",
            ),
        ),
    )


def _deployed(here: Stand, file: str) -> Side:
    before = here.container_pids()
    return portico(here, here.deploy(APPS / file)["hello"], before)


def _light(ours: Side, others: dict[str, Side], connections: int, rounds: int, seconds: float) -> Table:
    samples = in_turns({"portico": ours, **others}, rounds, connections=connections, seconds=seconds)
    goals = [_goal(name, samples, connections, LIGHT[name]) for name in others]
    ingress, nginx = cpu(samples["portico"], "ingress"), cpu(samples["nginx → uvicorn"], "nginx")
    goals.append(
        Goal(
            f"CPU of the ingress per request, {connections} connections",
            ingress / nginx,
            at_most=3,
            ours=f"{ingress:.0f} µs",
            beside=f"{nginx:.0f} µs, nginx",
        )
    )
    return Table(_title(connections), {name: shown(values) for name, values in samples.items()}, tuple(goals))


def _heavy(name: str, run: Run) -> Iterator[Table]:
    rounds, seconds = (1, 1) if run.quick else (4, 2)
    if not run.peers:
        return
    with stand() as here, sides.SERVERS[name]() as other:
        ours = _deployed(here, "warm_app.py")
        for connections in CONNECTIONS:
            pair = {"portico": ours, name: other}
            samples = in_turns(pair, rounds, connections=connections, seconds=seconds)
            yield Table(
                f"{_title(connections)}, {name}",
                {side: shown(values) for side, values in samples.items()},
                (_goal(name, samples, connections, HEAVY[name]),),
            )


def _goal(name: str, samples: dict[str, list], connections: int, at_least: float | None) -> Goal:
    return Goal(
        f"requests/s, async handler, {connections} connections",
        ratio(samples["portico"], samples[name]),
        at_least=at_least,
        ours=rate(samples["portico"]),
        beside=f"{rate(samples[name])}, {name}",
    )


def _title(connections: int) -> str:
    return f"{UNDER_LOAD}{connections} connections"
