"""Resolves ``${section.key}`` in settings, by OmegaConf's rules but without its resolvers."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from vendomini.errors import ConfigError

_MISSING = "???"  # OmegaConf's word for a value that is not known yet


def resolved(
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    varying: Collection[str],
    place: Callable[[str], str],
) -> dict[str, Any]:
    """`settings` with every ``${...}`` replaced by what it refers to.

    `defaults` may be referred to as well. `varying` are dotted keys whose values differ between
    runs, which nothing may refer to. `place` words where a dotted key is written. Raises
    `ConfigError` for a resolver such as ``${oc.env:HOME}`` (the result would depend on the
    machine), and for a reference to nothing, to itself or to a varying key.
    """
    found = [(key, text) for key, text in _texts(settings, "") if "${" in text]
    if not found:
        return dict(settings)
    for key, text in found:
        if _calls_resolver(text):
            raise ConfigError(
                f"{place(key)}: `{key}` is `{text}`, which calls a resolver",
                hint="write the value itself: what a run is may not depend on the machine",
            )
    values = _found(settings, defaults, found, varying=varying, place=place)
    return cast(dict[str, Any], _replaced(settings, values, ""))


def _found(
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    asked: Sequence[tuple[str, str]],
    *,
    varying: Collection[str],
    place: Callable[[str], str],
) -> dict[str, Any]:
    """By dotted key, the value of each text with ``${...}``."""
    # Imported here: few phase files refer to anything, and its parser takes longer to load than
    # all the rest of them to read.
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    try:
        known = OmegaConf.merge(OmegaConf.create(dict(defaults)), OmegaConf.create(dict(settings)))
        for key in varying:
            OmegaConf.update(known, key, _MISSING)
    except OmegaConfBaseException:
        for key, text in asked:
            try:
                OmegaConf.create({"text": text})
            except OmegaConfBaseException as error:
                raise ConfigError(
                    f"{place(key)}: `{key}` is `{text}`, which cannot be read: "
                    f"{_first_line(error)}",
                    hint="write `${section.key}`, or the value itself",
                ) from None
        raise
    values: dict[str, Any] = {}
    for key, text in asked:
        try:
            value = OmegaConf.select(known, key, throw_on_missing=True)
            if isinstance(value, ListConfig):
                value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        except InterpolationToMissingValueError:
            raise ConfigError(
                f"{place(key)}: `{key}` is `{text}`, which refers to a setting that differs "
                "between runs",
                hint="write the value, or make this setting an axis too",
            ) from None
        except (OmegaConfBaseException, RecursionError) as error:
            raise ConfigError(
                f"{place(key)}: `{key}` is `{text}`, which cannot be resolved: "
                f"{_first_line(error)}",
                hint="refer to a setting by its full dotted key, such as `${experiment.seed}`",
            ) from None
        if isinstance(value, DictConfig):
            raise ConfigError(
                f"{place(key)}: `{key}` is `{text}`, which refers to a section",
                hint="refer to one setting by its full dotted key",
            )
        if isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"{place(key)}: `{key}` is `{text}`, which still has `${{` when it is resolved",
                hint="leave `${` out of texts",
            )
        values[key] = value
    return values


def _first_line(error: Exception) -> str:
    """What OmegaConf says, without its lines of context."""
    return str(error).partition("\n")[0]


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Each text in nested data, with its dotted key (items of a list: ``key[0]``)."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{key}[{index}]")


def _replaced(value: Any, values: Mapping[str, Any], key: str) -> Any:
    """Nested data with the texts at some dotted keys replaced."""
    if isinstance(value, Mapping):
        return {
            name: _replaced(item, values, f"{key}.{name}" if key else name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_replaced(item, values, f"{key}[{index}]") for index, item in enumerate(value)]
    return values.get(key, value)


def _calls_resolver(text: str) -> bool:
    """Whether a colon stands inside ``${...}``, however deeply that is nested."""
    depth = 0
    for index, letter in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif letter == "}":
            depth = max(0, depth - 1)
        elif letter == ":" and depth:
            return True
    return False
