"""The pages on performance and on reliability, from the file of results."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench.render import BEGIN, DOCS, END, PERFORMANCE, PLOTS, RELIABILITY, promised, rendered, replaced
from bench.results import RESULTS, ROOT, Goal, Table, keep, machine, read

HERE = machine()
COLD = Table(
    "cold start",
    {"portico": {"p50_ms": 31.0}},
    (
        Goal("cold start, p50", 30.04, "ms", at_most=30, ours="30.0 ms", beside="400 ms uvicorn"),
        Goal("cold start, p99", 61.0, "ms", at_most=80, ours="61.0 ms"),
        Goal("others", 2.125),
    ),
)


SOAK = Table(
    "a soak of 10 minutes",
    {"answers": 1_234_567, "p99, ms": {"quick": 4.5, "slow": 310.0}, "connections held": "10000 of 10000"},
    (Goal("soak: answers lost against the rules", 0, "", at_most=0, ours="of 1,234,567"),),
)


def test_figures_stand_between_the_marks_and_the_prose_stays(tmp_path: Path) -> None:
    """The command writes the pages; a second time changes nothing."""
    results, pages = tmp_path / "results.json", [tmp_path / name for name in (PERFORMANCE, RELIABILITY)]
    keep(results, "cold", [COLD], 1, HERE)
    keep(results, "soak", [SOAK], 600, HERE)
    for page in pages:
        page.write_text(f"before\n{BEGIN}\nlast week's\n{END}\nafter\n")
    command = [sys.executable, "-m", "bench.render", "--results", str(results), "--docs", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    performance, reliability = written = [page.read_text() for page in pages]
    assert performance.startswith(f"before\n{BEGIN}\n\n1 of 2 goals are met.\n")
    assert "soak" not in performance
    assert reliability.startswith(
        f"before\n{BEGIN}\n\nA soak of 10 minutes:\n\n|  |  |\n|---|---|\n| answers | 1,234,567 |\n"
    )
    assert "| p99, ms | quick 4.5, slow 310.0 |\n| connections held | 10000 of 10000 |\n" in reliability
    assert "cold" not in reliability
    assert all(text.endswith(f"\n{END}\nafter\n") and "last week" not in text for text in written)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert [page.read_text() for page in pages] == written


def test_a_goal_that_is_not_met_says_so(tmp_path: Path) -> None:
    """Also where rounding would hide it; a figure without a goal has no verdict."""
    keep(tmp_path / "results.json", "cold", [COLD], 1, HERE)
    lines = rendered(read(tmp_path / "results.json"), []).splitlines()
    assert "| cold start, p50 | 30.0 ms | 400 ms uvicorn | 30.04 ms | ≤ 30 ms | **not met** |" in lines
    assert "| cold start, p99 | 61.0 ms |  | 61 ms | ≤ 80 ms | met |" in lines
    assert "| others |  |  | 2.12 |  |  |" in lines


def test_a_failure_is_on_the_page() -> None:
    """Nobody takes old figures for new ones."""
    assert "The last run of cold failed: it broke." in rendered({"cold": {"failed": "it broke"}}, [])


def test_without_results_the_page_says_that_nothing_was_measured() -> None:
    """It names the command that measures."""
    assert rendered({}, []) == "Nothing has been measured yet: `make bench`.\n"


@pytest.mark.parametrize("page", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_page_without_its_marks_is_left_as_it_is(page: str) -> None:
    """No text of a person is lost to a mark that has gone."""
    with pytest.raises(ValueError, match="not marked"):
        replaced(page, "figures")


def test_the_pages_have_the_figures_of_the_results() -> None:
    """Who measures, or changes the rendering, also renders: make bench-render."""
    drawn = [name for name in PLOTS if (DOCS / "img" / f"{name}.svg").exists()]
    for name, measured in ((PERFORMANCE, rendered(read(RESULTS), drawn)), (RELIABILITY, promised(read(RESULTS)))):
        page = (DOCS / name).read_text()
        assert replaced(page, measured) == page
