"""The options of `@app.function` in groups: each group is checked, and becomes a part of the specification."""

from __future__ import annotations

from collections.abc import Mapping

from portico.model.errors import InvalidError
from portico.model.spec import Autoscaler, Resources
from portico.model.variables import check_variables
from portico.sdk.absent import refusal
from portico.sdk.retries import Retries

MAX_TIMEOUT = 24 * 60 * 60
Pair = tuple[float, float]


def autoscaler(
    min_containers: int | None, max_containers: int | None, buffer_containers: int | None, scaledown_window: int | None
) -> Autoscaler:
    """How many containers there may be, and how long an idle one stays; None means the default."""
    least = _whole("min_containers", min_containers, 0)
    most = _whole("max_containers", max_containers, 1)
    spare = _whole("buffer_containers", buffer_containers, 0)
    if least is not None and most is not None and most < least:
        raise InvalidError(f"`min_containers` ({least}) cannot be greater than `max_containers` ({most}).")
    default = Autoscaler()
    window = default.scaledown_window if scaledown_window is None else scaledown_window
    if not _is_number(window) or not 2 <= window <= 3600:
        raise InvalidError(f"`scaledown_window` must be between 2 and 3600 (inclusive) seconds, not {window!r}.")
    return Autoscaler(
        min_containers=least or 0, max_containers=most, buffer_containers=spare or 0, scaledown_window=float(window)
    )


def resources(
    cpu: float | tuple[float, float] | None, memory: int | tuple[int, int] | None, gpu: str | list[str] | None
) -> Resources:
    """What a container asks for: cores, MiB and GPUs; a pair is (request, limit)."""
    cores, cores_limit = _request_and_limit("cpu", cpu)
    mib, mib_limit = _request_and_limit("memory", memory)
    for value in (mib, mib_limit):
        if value is not None and value != int(value):
            raise InvalidError(f"`memory` is a whole number of MiB, not {value!r}.")
    return Resources(
        cpu=cores,
        cpu_limit=cores_limit,
        memory=None if mib is None else int(mib),
        memory_limit=None if mib_limit is None else int(mib_limit),
        gpu=_gpus(gpu),
    )


def timeout(value: object) -> int:
    """`timeout=`, in seconds."""
    if value is None:
        raise InvalidError("The `timeout` parameter cannot be set to None.", hint="It is 1 s to 24 h; 300 by default.")
    seconds = _whole("timeout", value, 1, MAX_TIMEOUT)
    assert seconds is not None
    return seconds


def startup_timeout(value: object) -> float | None:
    """`startup_timeout=`, in seconds; None is the same as `timeout`."""
    seconds = _whole("startup_timeout", value, 1, MAX_TIMEOUT)
    return None if seconds is None else float(seconds)


def retries(value: object) -> Retries | None:
    """`retries=`: a number stands for that many retries with a fixed delay of one second."""
    if value is None or isinstance(value, Retries):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"`retries` must be a whole number or a `modal.Retries` object, not {value!r}.")
    return Retries(max_retries=value, backoff_coefficient=1.0, initial_delay=1.0) if value else None


def environment(env: Mapping[str, str | None] | None) -> dict[str, str]:
    """`env=`: variables that win over those of secrets."""
    return check_variables({} if env is None else env, "`env=`")


def single_use(single_use_containers: bool, max_inputs: object) -> bool:
    """`single_use_containers`, and its old name `max_inputs=1`."""
    if max_inputs is None:
        return bool(single_use_containers)
    if isinstance(max_inputs, bool) or not isinstance(max_inputs, int):
        raise InvalidError(f"`max_inputs` must be an int, not {type(max_inputs).__name__}.")
    if max_inputs <= 0:
        raise InvalidError("`max_inputs` must be positive.")
    if max_inputs > 1:
        raise InvalidError(
            "Only `max_inputs=1` is supported by `@app.function`.",
            hint="For many inputs at a time use `@modal.concurrent(max_inputs=…)` below `@app.function`.",
        )
    return True


def refuse(owner: str, hints: Mapping[str, str], **options: object) -> None:
    """UnsupportedError when one of these options is used."""
    for name, value in options.items():
        if value:
            raise refusal(f"{name}= of {owner}", hint=hints.get(name))


def _whole(name: str, value: object, least: int, most: int | None = None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"`{name}` must be a whole number, not {value!r}.")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"between {least} and {most}"
        raise InvalidError(f"`{name}` must be {limits}, not {value}.")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _request_and_limit(name: str, value: float | Pair | None) -> tuple[float | None, float | None]:
    if value is None:
        return None, None
    pair = value if isinstance(value, tuple) else (value, None)
    if len(pair) != 2 or not _is_number(pair[0]) or not (pair[1] is None or _is_number(pair[1])):
        raise InvalidError(f"`{name}` must be a number, or a pair (request, limit), not {value!r}.")
    request, limit = pair
    if not request > 0 or (limit is not None and not limit > 0):
        raise InvalidError(f"`{name}` must be positive, not {value!r}.")
    if limit is not None and limit < request:
        raise InvalidError(f"Cannot specify a {name} limit lower than the request: {limit} < {request}.")
    return request, limit


def _gpus(gpu: object) -> tuple[str, ...]:
    if gpu is None:
        return ()
    wishes = tuple(gpu) if isinstance(gpu, list | tuple) else (gpu,)
    for wish in wishes:
        if not isinstance(wish, str) or not wish:
            raise InvalidError(f"Invalid GPU: {wish!r}.", hint='A string such as "any", "A100" or "A100:2", or a list.')
        count = wish.partition(":")[2]
        if ":" in wish and not (count.isdecimal() and int(count) > 0):
            raise InvalidError(f"Invalid GPU count in {wish!r}: it must be a positive whole number.")
    return wishes
