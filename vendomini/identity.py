"""What makes a run that run: the hash that names it, and what stands for its model.

A run's id covers what defines its outcome and nothing else, so that more replications, another
engine, a moved folder or a new setting with a default rename nothing that was played.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vendomini.chat import MODEL
from vendomini.errors import ConfigError

NAME = f"{MODEL}.name"

ID_DIGITS = 16
"""64 bits: among 100,000 runs, two share an id with a probability below 1e-9."""

DEFINING = ("model.safetensors.index.json", "tokenizer_config.json", "chat_template.jinja")
"""Small files of a model that decide what it is asked and answers."""

SAMPLE_BYTES = 1 << 16

# The standard library's JSON: its spelling of numbers is older than any id will get.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def run_id(
    *,
    workload: str,
    workload_version: int,
    seed: int,
    replication: int,
    model: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> str:
    """16 hexadecimal digits: equal content, equal id, whatever the order of keys.

    `model` is what `model_identity` says, None for a workload without one; `settings` are the
    other settings by dotted key, only those that differ from the schema's defaults.
    """
    content = _canonical(
        {
            "workload": workload,
            "workload_version": workload_version,
            "seed": seed,
            "replication": replication,
            "model": model,
            "settings": settings,
        }
    )
    return hashlib.sha256(content.encode()).hexdigest()[:ID_DIGITS]


def is_local(name: str) -> bool:
    """Whether a model's name means a folder on this machine rather than a hub id."""
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..") or os.path.isdir(name)


def absolute(name: str) -> str:
    """The name of a local folder so that it means the same from every working directory."""
    return os.path.abspath(os.path.expanduser(name))


def model_identity(name: str, revision: str | None) -> dict[str, Any]:
    """What stands for a model in a run's id.

    For a hub id the name and revision as written; for a local folder a hash of its config.json,
    weight index and chat template, and of its weight files' names, sizes and a sample from the
    middle of each, so that a moved folder is still the same model and another fine-tune of the
    same architecture is not. Raises `ConfigError` if the
    name is empty, or the folder or its config.json is missing.
    """
    if not name.strip():
        raise ConfigError(
            f"`{NAME}` is empty", hint="give a hub id such as `org/name`, or a folder"
        )
    if not is_local(name):
        return {"name": name, "revision": revision}
    return {"folder": _folder_hash(Path(absolute(name))), "revision": revision}


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    try:
        if not folder.is_dir():
            raise ConfigError(
                f"`{NAME}` is `{folder}`, and there is no such folder",
                hint="give a hub id such as `org/name`, or a folder that holds a config.json",
            )
        digest.update((folder / "config.json").read_bytes())
        for name in DEFINING:
            if (file := folder / name).is_file():
                digest.update(f"\0{name}\0".encode() + file.read_bytes())
        for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            size = file.stat().st_size
            digest.update(f"\0{file.name}\0{size}\0".encode() + _middle(file, size))
    except FileNotFoundError as error:
        raise ConfigError(
            f"`{NAME}` is `{folder}`, which lacks `{Path(error.filename).name}`",
            hint="a local model is a folder with config.json, tokenizer and weights, complete",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"`{NAME}` is `{folder}`, which cannot be read: {error.strerror}",
            hint="check the permissions of the folder and its files",
        ) from None
    return digest.hexdigest()


def _middle(file: Path, size: int) -> bytes:
    """A sample of a weight file: reading hundreds of gigabytes would take longer than a run."""
    with file.open("rb") as opened:
        opened.seek(max(0, (size - SAMPLE_BYTES) // 2))
        return opened.read(SAMPLE_BYTES)
