"""Functions that call functions."""

import time

import modal

app = modal.App("bench-calls")


@app.function(min_containers=1, max_containers=1)
def echo(x):
    return x


@app.function(min_containers=1, max_containers=1)
def size(data):
    return len(data)


@app.function(min_containers=2, max_containers=2)
def trivial(x):
    return x


@app.function(min_containers=1, max_containers=1)
@modal.fastapi_endpoint()
def round_trips(number: int) -> list[float]:
    """Seconds of each of so many calls, one after the other, from this container."""
    seconds = []
    for i in range(number):
        began = time.perf_counter()
        echo.remote(i)
        seconds.append(time.perf_counter() - began)
    return seconds


@app.function(min_containers=1, max_containers=1)
@modal.fastapi_endpoint()
def mapping(number: int) -> float:
    """Calls per second of a map, asked for from this container."""
    began = time.perf_counter()
    assert list(trivial.map(range(number))) == list(range(number))
    return number / (time.perf_counter() - began)


@app.function(min_containers=1, max_containers=1)
@modal.fastapi_endpoint()
def argument(number: int) -> float:
    """Seconds of one call with an argument of so many bytes, from this container."""
    data = b"x" * number
    began = time.perf_counter()
    assert size.remote(data) == number
    return time.perf_counter() - began
