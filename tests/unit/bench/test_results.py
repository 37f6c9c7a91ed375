"""The file of results: one measurement's figures replace its own, and nothing else."""

import json
from pathlib import Path

import pytest
from bench.results import Goal, Table, keep, keep_failure, machine, read, under_load

HERE = machine()


def table(figure: float) -> Table:
    """A table with one goal."""
    return Table("speed", {"portico": figure}, (Goal("speed", figure, at_least=0.97),))


def test_a_measurement_replaces_its_own_figures_and_no_others(tmp_path: Path) -> None:
    """Each can be run again by itself."""
    file = tmp_path / "results.json"
    keep(file, "cold", [table(1.0)], 3.2, HERE)
    keep(file, "calls", [table(2.0)], 1, HERE)
    keep(file, "cold", [table(3.0)], 4, HERE)
    rows = read(file)
    assert rows["cold"]["tables"] == {"speed": {"portico": 3.0}}
    assert rows["calls"]["tables"] == {"speed": {"portico": 2.0}}
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_figures_of_the_run_before(tmp_path: Path) -> None:
    """They are marked, until the measurement works again."""
    file = tmp_path / "results.json"
    keep(file, "cold", [table(1.0)], 1, HERE)
    keep_failure(file, "cold", "TimeoutError: too long")
    assert read(file)["cold"]["tables"] == {"speed": {"portico": 1.0}}
    assert read(file)["cold"]["failed"] == "TimeoutError: too long"
    keep(file, "cold", [table(1.0)], 1, HERE)
    assert "failed" not in read(file)["cold"]


def test_a_first_run_that_fails_is_kept_as_such(tmp_path: Path) -> None:
    """There are no figures then, only the mark."""
    keep_failure(tmp_path / "results.json", "cold", "it broke")
    assert json.loads((tmp_path / "results.json").read_text()) == {"cold": {"failed": "it broke"}}


def test_a_file_that_is_no_json_is_not_written_over(tmp_path: Path) -> None:
    """The figures of a quarter of an hour are not lost to a typing error."""
    file = tmp_path / "results.json"
    file.write_text("{")
    with pytest.raises(SystemExit, match="is no JSON"):
        keep(file, "cold", [table(1.0)], 1, HERE)
    assert file.read_text() == "{"


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("a", 0.97, at_least=0.97), True),
        (Goal("a", 0.9699, at_least=0.97), False),
        (Goal("a", 30.0, "ms", at_most=30), True),
        (Goal("a", 30.01, "ms", at_most=30), False),
    ],
)
def test_a_goal_is_met_without_rounding(goal: Goal, met: bool) -> None:
    """What is shown as 0.97 may still be too little."""
    assert goal.met is met


def test_each_peer_is_found_wherever_it_was_measured() -> None:
    """The fastest comes first; Portico's figures are those beside the light peers."""

    def rate(number: float) -> dict[str, dict[str, float]]:
        return {"rps": {"median": number}}

    title = "requests per second, async handler, 32 connections"
    rows = {
        "throughput": {"tables": {title: {"portico": rate(9), "nginx": rate(10)}, title.replace("32", "256"): {}}},
        "bentoml": {"tables": {f"{title}, BentoML": {"portico": rate(8), "BentoML": rate(1)}}},
        "cold": {"failed": "it broke"},
    }
    assert under_load(rows, 32) == {"nginx": rate(10), "portico": rate(9), "BentoML": rate(1)}
