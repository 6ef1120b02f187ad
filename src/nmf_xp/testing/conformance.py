"""Prove a backend: run all checks on a namespace and a device."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries
from nmf_xp.testing.backends import Target
from nmf_xp.testing.checks import checks
from nmf_xp.testing.report import Entry, Report, Skip, run_check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nmf_xp.testing.checks import Check


def check_backend(
    xp: Any,
    /,
    *,
    device: Any = None,
    dtypes: Sequence[str] = ("float32", "float64"),
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Prove that nmf_xp is right on an array library and a device.

    Parameters
    ----------
    xp : module or Target
        The array library, for example `numpy`, `jax.numpy`, `torch` or `cupy`, or a member of `Backend` as a `Target`.
    device : optional
        The device, as the library's creation functions take it; by default the library's own.
    dtypes : sequence of str, default ("float32", "float64")
        Which floating dtypes to check.
    expected_failures : mapping of str to str, optional
        Names of checks that are known to fail, with the reason. One that passes after all is a failure.

    Returns
    -------
    Report
        `report.ok` is the verdict, `print(report)` a table, `report.to_json()` both for a machine.

    Raises
    ------
    ValueError
        `expected_failures` names no check, or `dtypes` something else than "float32" and "float64".

    Examples
    --------
    >>> import numpy
    >>> from nmf_xp.testing import check_backend
    >>> check_backend(numpy, dtypes=["float64"]).ok
    True
    """
    target = make_target(xp, device)
    expected = dict(expected_failures or {})
    unknown = sorted(set(expected) - {check.__name__ for check in checks()})
    if unknown:
        msg = f"`expected_failures` must name checks of nmf_xp.testing.checks(), got {unknown}"
        raise ValueError(msg)
    if not set(dtypes) <= {"float32", "float64"}:
        msg = f"`dtypes` must be 'float32' and 'float64' or one of them, got {list(dtypes)}"
        raise ValueError(msg)
    with target.active():
        return Report(tuple(outcome(case, target, expected) for case in cases(dtypes)))


def cases(dtypes: Sequence[str] = ("float32", "float64")) -> list[tuple[Check, str]]:
    """Each check with each dtype."""
    return [(check, dtype) for check in checks() for dtype in dtypes]


def outcome(case: tuple[Check, str], target: Target, expected: Mapping[str, str] | None = None) -> Entry:
    """One check with one dtype on an active target."""
    check, dtype = case
    function = functools.partial(_on_dtype, check, target, dtype)
    return run_check(function, check.__name__, target.name, dtype, expected or {})


def _on_dtype(check: Check, target: Target, dtype: str) -> str:
    """The check, where the device has the dtype."""
    widest = libraries.dtype_name(libraries.accumulator_dtype(target.xp, target.device))
    if dtype == "float64" and widest != "float64":
        remedy = "; JAX has it after jax.config.update('jax_enable_x64', True)" if target.is_jax else ""
        msg = f"the device has no float64{remedy}"
        raise Skip(msg)
    return check(target, dtype)


def parametrize(*targets: Target, dtypes: Sequence[str] = ("float32", "float64")) -> Any:
    """A pytest mark that gives a test `check`, `target` and `dtype`, for all checks on all targets."""
    import pytest

    chosen = [(check, target, dtype) for target in targets for check, dtype in cases(dtypes)]
    names = [f"{target.name}-{check.__name__}-{dtype}" for check, target, dtype in chosen]
    return pytest.mark.parametrize(("check", "target", "dtype"), chosen, ids=names)


def make_target(xp: Any, device: Any) -> Target:
    """A namespace and a device as a target; a target as it is."""
    if isinstance(xp, Target):
        return xp
    keyword = {} if device is None else {"device": device}
    name = xp.__name__.removeprefix("array_api_compat.").removesuffix(".numpy") or "numpy"
    label = name if device is None else f"{name}:{device}"
    return Target(name=label, xp=libraries.array_namespace(xp.ones(1, **keyword)), device=device)
