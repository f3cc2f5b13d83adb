"""The one exception meant for the user's eyes."""

from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


class UserError(Exception):
    """Something the user can act on: its message is one clear line, printed without a traceback."""


def choose(name: str, value: str, choices: type[Choice]) -> Choice:
    """The member of `choices` that option `name` was given; UserError lists them."""
    if value not in list(choices):
        raise UserError(f"{name} {value}: choose {' or '.join(choices)}")
    return choices(value)
