"""The same calls with Ray, in an environment of its own: requests as JSON lines on stdin, answers on stdout."""

import json
import os
import sys
import time

import ray


@ray.remote(num_cpus=0)
class Echo:
    """An actor that is called."""

    def echo(self, x):
        return x

    def size(self, data):
        return len(data)


@ray.remote(num_cpus=0)
class Caller:
    """An actor that calls."""

    def __init__(self, other):
        self._other = other

    def round_trips(self, number):
        """Seconds of each of so many calls, one after the other."""
        seconds = []
        for i in range(number):
            began = time.perf_counter()
            ray.get(self._other.echo.remote(i))
            seconds.append(time.perf_counter() - began)
        return seconds

    def mapping(self, number):
        """Tasks per second, on the two workers that two CPUs make."""
        began = time.perf_counter()
        assert ray.get([trivial.remote(i) for i in range(number)]) == list(range(number))
        return number / (time.perf_counter() - began)

    def argument(self, number):
        """Seconds of one call with so many bytes."""
        data = b"x" * number
        began = time.perf_counter()
        assert ray.get(self._other.size.remote(data)) == number
        return time.perf_counter() - began


@ray.remote(num_cpus=1)
def trivial(x):
    return x


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Ray prints is no answer
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    caller = Caller.remote(Echo.remote())
    for line in sys.stdin:
        verb, number = json.loads(line)
        print(json.dumps(ray.get(getattr(caller, verb).remote(number))), file=answers, flush=True)


main()
