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
    alternatives,
    defaults,
    nullable_mappings,
    setting_keys,
    settings_out_of_id,
)
from vendomini.schema.once import (
    Words,
    at_key,
    at_or_in,
    first_words,
    texts_in,
    todays_value,
    todays_words,
    words_once,
)
from vendomini.schema.words import choices_of, nearest, shown

__all__ = [
    "Place",
    "Source",
    "Words",
    "alternatives",
    "at_key",
    "at_or_in",
    "check_value",
    "choices_of",
    "complete",
    "conform",
    "defaults",
    "find_setting",
    "first_words",
    "nearest",
    "nullable_mappings",
    "setting_keys",
    "settings_out_of_id",
    "shown",
    "texts_in",
    "todays_value",
    "todays_words",
    "unknown_key",
    "words_once",
]
