"""`vendomini models`: what is known, and where each fact comes from."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.model_folders import model_folder
from vendomini.cli.models_command import app
from vendomini.errors import ConfigError
from vendomini.models import catalogue


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_all_models_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    app([], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(catalogue.entries())
    assert lines[0].split()[:2] == ["model", "parameters"]


def test_a_match_is_looked_for_in_ids_and_aliases() -> None:
    records = json.loads(printed("--match", "command-r-08", "--json"))
    assert [record["id"] for record in records] == ["CohereLabs/c4ai-command-r-08-2024"]
    assert records[0]["aliases"] == ["CohereForAI/c4ai-command-r-08-2024"]


def test_no_match_is_an_error_that_says_how_to_go_on() -> None:
    with pytest.raises(ConfigError, match="`nothing-such`") as raised:
        app(["--match", "nothing-such"], standalone_mode=False)
    assert "vendomini models" in raised.value.hint


def test_one_model_is_shown_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    app(["show", "THUDM/GLM-4-9B-0414"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "as `zai-org/GLM-4-9B-0414`: another name of it" in out
    assert "9.40B (9,400,279,040)" in out


def test_a_local_folder_is_shown(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", vocab_size=1000, intermediate_size=1024)
    record = json.loads(printed("show", str(folder), "--json"))
    assert record["layers"] == 4
    assert record["sources"]["config"] == str(folder / "config.json")


def test_a_guess_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    app(["show", "somebody/something-13b"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "only by its size" in out
    assert "give or take 25%" in out
