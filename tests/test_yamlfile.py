"""Reading YAML strictly: no value is silently something else than what is written."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vendomini.errors import ConfigError
from vendomini.yamlfile import dump_yaml, load_yaml, parse_value, parse_yaml

FILE = Path("phase.yaml")


def data_of(text: str) -> dict[str, Any]:
    return parse_yaml(text, FILE).data


def refusal_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, FILE)
    return f"{caught.value} | {caught.value.hint}"


@pytest.mark.parametrize("word", ["off", "on", "yes", "no", "Off", "y", "2025-10-17", "1.2.3", "="])
def test_a_word_other_yaml_readers_convert_stays_text(word: str) -> None:
    assert data_of(f"thinking: {word}") == {"thinking": word}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("0", 0),
        ("-3", -3), ("+4", 4), ("1e-3", 0.001), (".5", 0.5), ("2.", 2.0), ("1E5", 1e5),
        ("'5'", "5"), ("!!str 5", "5"), ("[a, 1]", ["a", 1]), ("{a: 1}", {"a": 1}),
    ],
)  # fmt: skip
def test_a_scalar_is_what_it_looks_like(written: str, value: object) -> None:
    found = data_of(f"key: {written}")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "trap", ["1:30", "12:30:00", "010", "-07", "0x1F", "0o17", "0b11", "1_000"]
)
def test_a_number_that_yaml_versions_read_differently_is_refused(trap: str) -> None:
    said = refusal_of(f"a: 1\nsection:\n  key: {trap}")
    assert "phase.yaml, line 3" in said
    assert "`section.key`" in said
    assert f"`{trap}`" in said
    assert f'"{trap}"' in said  # the hint shows how to quote it


@pytest.mark.parametrize("trap", ["1:30", "12:30:00", "010", "0x1F", "1_000", "off", ".inf"])
def test_a_trap_in_quotes_is_text(trap: str) -> None:
    assert data_of(f'key: "{trap}"') == {"key": trap}


@pytest.mark.parametrize("number", [".inf", "-.INF", ".nan", "1e999", "9" * 5000])
def test_a_number_that_is_not_finite_or_too_large_is_refused(number: str) -> None:
    assert "`key`" in refusal_of(f"key: {number}")


def test_a_key_written_twice_is_refused_with_both_lines() -> None:
    said = refusal_of("section:\n  a: 1\n  b: 2\n  a: 3\n")
    assert "phase.yaml, line 4: `section.a` is written twice (first in line 2)" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("---\n", "empty"),
        ("- a\n", "no mapping"),
        ("word", "no mapping"),
        ("a: [1\n", "line 2, column 1: not YAML"),
        ("a: b: c\n", "line 1, column 5: not YAML"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: \x07", "U+0007"),
        ("3.5: a\n", "the key `3.5`"),
        ("true: a\n", "the key `true`"),
        ("~: a\n", "is no text"),
        ("? [a]\n: b\n", "list or mapping"),
        ("a: &x {b: *x}\n", "contains itself"),
        ("a: !!python/name:os.system x\n", "tag"),
        ("a: !!int word\n", "tag"),
        ("a: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_strict_yaml_mapping_is_one_error_naming_the_file(text: str, said: str) -> None:
    refusal = refusal_of(text)
    assert refusal.startswith("phase.yaml")
    assert said in refusal


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "values, aliases counted each time" in refusal_of("\n".join(rows))


def test_whole_numbers_are_keys_only_where_levels_are_named() -> None:
    assert data_of("max_steps_by_level: {1: 500, '2': 900}") == {
        "max_steps_by_level": {"1": 500, "2": 900}
    }
    assert "written twice" in refusal_of("max_steps_by_level: {1: 500, '1': 900}")


def test_merge_keys_add_what_the_mapping_does_not_say_itself() -> None:
    document = parse_yaml("a: &a {x: 1, y: 2}\nb:\n  y: 3\n  <<: *a\n", FILE)
    assert document.data["b"] == {"x": 1, "y": 3}
    assert document.line("b.y") == 3


def test_a_document_knows_the_line_of_every_key_and_item() -> None:
    document = parse_yaml("a:\n  b: 1\ngrid:\n  a.b:\n    - 1\n    - 2\n", FILE)
    lines = [document.line(key) for key in ("a", "a.b", "grid.a.b", "grid.a.b[1]", "a.c")]
    assert lines == [1, 2, 4, 6, None]
    assert document.place("a.b") == "phase.yaml, line 2"
    assert document.place("a.c.d") == "phase.yaml, line 1"
    assert document.place("nowhere") == "phase.yaml"


def test_a_missing_file_names_the_nearest_one_there(tmp_path: Path) -> None:
    (tmp_path / "phase1.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="there is no file") as caught:
        load_yaml(tmp_path / "phase1.yml")
    assert f"{tmp_path / 'phase1.yaml'}" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        load_yaml(tmp_path / "nowhere" / "phase1.yaml")
    assert "no readable folder" in caught.value.hint


def test_a_file_that_is_no_readable_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(loop)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match="line 2: the file is not UTF-8"):
        load_yaml(latin)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "marked.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load_yaml(file).data == {"a": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5), ("off", "off"), ("", None), ("null", None), ("[a, 1, off]", ["a", 1, "off"]),
        ("a: b", "a: b"), ("run #3", "run #3"), ("*x", "*x"), ("'5'", "5"), ("{a: 1}", {"a": 1}),
    ],
)  # fmt: skip
def test_a_value_from_the_command_line_is_a_scalar_or_a_whole_collection(
    text: str, value: object
) -> None:
    assert parse_value(text, "override", "key") == value


@pytest.mark.parametrize("text", ["[a", "[a] b", "{a: 1", "'a", "1:30", "010", ".nan"])
def test_a_broken_value_from_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        parse_value(text, "override", "key")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(
        ["off", "1e-3", "0o17", "010", "1:30", "<<", "=", "1_0", ".inf", "2020-01-01"]
    )
)
TREES = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(TREES)
@example({"\x85": "a\x85b \u2028"})
def test_what_is_dumped_is_read_back_as_it_was(tree: dict[str, Any]) -> None:
    text = dump_yaml(tree)
    found = parse_yaml(text, FILE).data
    assert found == tree
    assert repr(found) == repr(tree)  # also the types, and the sign of zero
    assert yaml.safe_load(text) == tree
