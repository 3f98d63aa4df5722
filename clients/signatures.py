"""Signatures of the faces' methods: `help()` and editors show what a call really takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_args

F = TypeVar("F", bound=Callable[..., Any])


def sign(method: Callable[..., Any], plan: Callable[..., Any], owner: str) -> None:
    """Give a method of class `owner` the name, docstring and parameters of its plan, and return type of its value."""
    told = signature(plan, eval_str=True)
    returned = get_args(told.return_annotation)[-1]  # of Generator[Call, Answer, T]
    method.__name__, method.__qualname__, method.__doc__ = plan.__name__, f"{owner}.{plan.__name__}", plan.__doc__
    method.__annotations__ = {name: each.annotation for name, each in told.parameters.items()} | {"return": returned}
    this = Parameter("self", Parameter.POSITIONAL_ONLY)
    _set(method, told.replace(parameters=[this, *told.parameters.values()], return_annotation=returned))


def with_options(plan: Callable[..., Any]) -> Callable[[F], F]:
    """Show the keywords that a method passes on to its plan as `**options` one by one, with their defaults."""

    def change(method: F) -> F:
        told = signature(method)
        own = [each for each in told.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        options = [each for each in signature(plan).parameters.values() if each.default is not Parameter.empty]
        _set(method, told.replace(parameters=[*own, *options]))
        return method

    return change


def _set(method: Callable[..., Any], told: Signature) -> None:
    method.__signature__ = told  # type: ignore[attr-defined]
