"""Checks plain nested data against a schema: a frozen dataclass of frozen dataclasses."""

from vendomini.schema.check import (
    Place,
    Source,
    check_value,
    complete,
    conform,
    find_setting,
    unknown_key,
)
from vendomini.schema.fields import defaults, setting_keys
from vendomini.schema.words import nearest, shown

__all__ = [
    "Place",
    "Source",
    "check_value",
    "complete",
    "conform",
    "defaults",
    "find_setting",
    "nearest",
    "setting_keys",
    "shown",
    "unknown_key",
]
