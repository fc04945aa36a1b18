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
from vendomini.schema.fields import (
    defaults,
    nullable_mappings,
    setting_keys,
    settings_out_of_id,
)
from vendomini.schema.words import choices_of, nearest, shown

__all__ = [
    "Place",
    "Source",
    "check_value",
    "choices_of",
    "complete",
    "conform",
    "defaults",
    "find_setting",
    "nearest",
    "nullable_mappings",
    "setting_keys",
    "settings_out_of_id",
    "shown",
    "unknown_key",
]
