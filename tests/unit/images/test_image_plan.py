"""Which images can be built here, and under which key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from portico.images.plan import check, own_version, plan, step_name
from portico.images.steps import pip_options
from portico.model.errors import InvalidError, UnsupportedError
from portico.model.spec import ImageSpec, ImageStep

PIP = ImageStep(kind="pip_install", arguments=("click",))
ENV = ImageStep(kind="env", options={"A": "1"})
RUN = ImageStep(kind="run_commands", arguments=("true",))
WORKDIR = ImageStep(kind="workdir", arguments=("/srv",))


@pytest.mark.parametrize("kind", ["apt_install", "from_registry", "from_dockerfile", "micromamba_install", "anything"])
def test_what_needs_a_root_filesystem_is_refused(kind: str) -> None:
    """The error names the step and says what to do instead."""
    with pytest.raises(UnsupportedError, match=rf"{kind}\(x\) needs a root filesystem") as caught:
        check(ImageSpec(steps=(PIP, ImageStep(kind=kind, arguments=("x",)))))
    assert caught.value.hint


@pytest.mark.parametrize("version", ["3.10", "3.8.1"])
def test_a_python_too_old_for_the_runtime_is_refused(version: str) -> None:
    """A container runs Portico's own code."""
    with pytest.raises(UnsupportedError, match="too old"):
        check(ImageSpec(python_version=version))


@pytest.mark.parametrize("version", ["", "3", "2.7", "3.12-dev", "../python", "3.12.1.1"])
def test_what_is_no_python_version_is_refused(version: str) -> None:
    """Only minor versions and patch versions of Python 3."""
    with pytest.raises(InvalidError, match="Not a Python version"):
        check(ImageSpec(python_version=version))


def test_an_unknown_option_of_pip_is_refused() -> None:
    """Nothing is silently ignored."""
    with pytest.raises(InvalidError, match="'gpu'"):
        check(ImageSpec(steps=(replace(PIP, options={"gpu": "1"}),)))


def test_the_same_steps_have_the_same_key() -> None:
    """Neither the order of options nor the mention of the server's own Python makes a difference."""
    one = ImageSpec(steps=(replace(PIP, options={"pre": "1", "find_links": "x"}),))
    two = ImageSpec(
        steps=(replace(PIP, options={"find_links": "x", "pre": "1"}),), python_version=own_version(), force_build=True
    )
    assert plan(one).key == plan(two).key


@pytest.mark.parametrize(
    "other",
    [
        ImageSpec(),
        ImageSpec(steps=(PIP, RUN)),
        ImageSpec(steps=(replace(PIP, arguments=("click==8",)),)),
        ImageSpec(steps=(replace(PIP, options={"pre": "1"}),)),
        ImageSpec(steps=(ImageStep(kind="requirements", text="click"),)),
        ImageSpec(steps=(PIP,), python_version="3.99"),
    ],
)
def test_other_steps_have_another_folder(other: ImageSpec) -> None:
    """Whatever may change the content changes the key."""
    assert plan(other).folder_key != plan(ImageSpec(steps=(PIP,))).folder_key


def test_settings_after_the_last_build_share_the_folder() -> None:
    """A changed variable needs no new environment, but it is another image."""
    plain, with_env = plan(ImageSpec(steps=(PIP,))), plan(ImageSpec(steps=(PIP, ENV, WORKDIR)))
    assert plain.folder_key == with_env.folder_key
    assert plain.key != with_env.key
    assert plan(ImageSpec(steps=(ENV, PIP))).folder_key != plain.folder_key


def test_later_settings_win() -> None:
    """The environment and the working folder of a container are those after all steps."""
    later = ImageStep(kind="env", options={"A": "2", "B": "3"})
    wanted = plan(ImageSpec(steps=(ENV, WORKDIR, PIP, later, replace(WORKDIR, arguments=("/app",)))))
    assert (wanted.env, wanted.workdir) == ({"A": "2", "B": "3"}, "/app")


def test_a_long_step_is_named_in_short() -> None:
    """A hundred packages do not fill the terminal."""
    assert step_name(replace(PIP, arguments=("click", "httpx"))) == "pip_install(click, httpx)"
    assert len(step_name(replace(PIP, arguments=("package",) * 100))) < 140


def test_pips_options_reach_uv() -> None:
    """Each option of `pip_install` has its flag; false ones and empty ones have none."""
    options = {"index_url": "https://i", "extra_index_url": "https://e", "find_links": "/w", "pre": "True"}
    assert pip_options({**options, "extra_options": "--no-deps --only-binary ':all:'"}) == [
        *("--extra-index-url", "https://e", "--no-deps", "--only-binary", ":all:"),
        *("--find-links", "/w", "--index-url", "https://i", "--prerelease", "allow"),
    ]
    assert pip_options({"pre": "False", "index_url": ""}) == []
