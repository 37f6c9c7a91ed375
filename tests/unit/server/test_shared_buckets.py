"""Token buckets that several processes take from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from portico.core.bucket import TokenBucket
from portico.server.shared_buckets import SharedBuckets

TAKING = """
import sys
from pathlib import Path
from portico.server.shared_buckets import SharedBuckets
bucket = SharedBuckets(Path(sys.argv[1])).new("all", 200.0, 50.0)
print(sum(bucket.has_one(50.0) for _ in range(5000)))
"""


def test_a_bucket_of_one_name_is_the_same_for_all_who_ask(tmp_path: Path) -> None:
    """One of another name is not."""
    here, there = SharedBuckets(tmp_path), SharedBuckets(tmp_path)
    first, second = here.new("all", 1.0, 50.0), there.new("all", 1.0, 50.0)
    taken = [bucket.has_one(50.0) for _ in range(3) for bucket in (first, second)]
    assert taken == [True] * 5 + [False]
    assert there.new("other", 1.0, 50.0).has_one(50.0)


def test_it_fills_as_any_other_does(tmp_path: Path) -> None:
    """Step for step, also with what is put back and with a clock that lags behind."""
    shared: TokenBucket = SharedBuckets(tmp_path).new("all", 2.0, 100.0)
    other = SharedBuckets(tmp_path).new("all", 2.0, 100.0)
    plain = TokenBucket(2.0, 100.0)
    for now in (100.0, 100.0, 101.3, 102.0, *[102.1] * 12, 102.7, 110.0, *[110.0] * 11):
        assert shared.has_one(now) == plain.has_one(now)
        if plain.has_one(now):
            plain.take()
            shared.take()
        else:
            assert abs(shared.wait() - plain.wait()) < 1e-6
    assert not other.has_one(109.0)  # another process has not looked at its clock since
    assert shared.has_one(110.5)
    assert not shared.has_one(110.5)
    shared.put_back()


def test_processes_that_take_at_once_take_no_more_than_there_is(tmp_path: Path) -> None:
    """Exactly the burst."""
    command = [sys.executable, "-c", TAKING, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(process.communicate(timeout=30)[0]) for process in processes) == 1000
