"""The same calls with the standard library's multiprocessing: requests as JSON lines on stdin, answers on stdout."""

import json
import multiprocessing
import sys
import time


def same(x):
    return x


def measure(verb, number, one, two):
    """What ray_calls.py measures under these names, between this process and its workers."""
    began = time.perf_counter()
    if verb == "round_trips":
        seconds = []
        for i in range(number):
            began = time.perf_counter()
            one.apply(same, (i,))
            seconds.append(time.perf_counter() - began)
        return seconds
    if verb == "mapping":
        assert list(two.imap(same, range(number))) == list(range(number))
        return number / (time.perf_counter() - began)
    data = b"x" * number
    began = time.perf_counter()
    assert one.apply(len, (data,)) == number
    return time.perf_counter() - began


def main():
    with multiprocessing.Pool(1) as one, multiprocessing.Pool(2) as two:
        for line in sys.stdin:
            print(json.dumps(measure(*json.loads(line), one, two)), flush=True)


if __name__ == "__main__":
    main()
