"""A model's folder: where it is on this machine, whether its files are all there, what they say."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vendomini.chat import MODEL
from vendomini.errors import ConfigError
from vendomini.identity import absolute, is_local
from vendomini.models.fields import (
    HEADS,
    HIDDEN,
    KEY_VALUE_HEADS,
    LANGUAGE_PARTS,
    LAYERS,
    dtype_of,
    first_positive,
    max_model_len,
    names_in,
)
from vendomini.models.gguf import refuse_gguf

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")
"""Patterns of weight files, the first that finds any counts: a folder may hold a model twice."""

NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\..+)")
LONGEST_HEADER_BYTES = 100_000_000
"""As the safetensors format has it: a longer one means that the file is something else."""

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "*.tiktoken",
)

MOST_NAMED = 3


class ModelIncomplete(ConfigError):
    """Files of a model are missing. For a hub id the engine would download them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model's own facts. None: its config.json does not say.

    `max_model_len` is the longest context in tokens that it allows, `weight_bytes` the size of
    its weights as they are on the disk. `chat_template` is the template's text; None: it has none.
    """

    folder: Path
    architecture: str | None
    model_type: str | None
    num_attention_heads: int | None
    num_key_value_heads: int | None
    hidden_size: int | None
    layers: int | None
    max_model_len: int | None
    dtype: str | None
    weight_bytes: int
    chat_template: str | None
    has_tokenizer: bool


def find_folder(
    name: str, revision: str | None, environ: Mapping[str, str] = os.environ
) -> Path | None:
    """Where the model's files are on this machine; None for a hub id that is not in the cache.

    A local folder is returned as it is named, whether or not it is there. A hub id is looked for
    in the hub's cache, as the hub's own program lays it out (``models--org--name``), then as
    plain folders ``org--name``.
    """
    if is_local(name):
        return Path(absolute(name))
    cache = _hub_cache(environ)
    hub = cache / f"models--{name.replace('/', '--')}"
    commit = _commit(hub, revision or "main")
    if commit is not None and (hub / "snapshots" / commit).is_dir():
        return hub / "snapshots" / commit
    plain = cache / name.replace("/", "--")
    # A plain folder does not say which revision it is.
    if revision is None and (plain / "config.json").is_file():
        return plain
    return None


def read_model(folder: Path) -> ModelFacts:
    """The facts of the model in a folder, from its small files and the headers of its weights.

    What the folder's files say beyond that is not looked at. Raises `ModelIncomplete` if the
    config.json or weights are missing, `ConfigError` if the folder is, if a file is damaged, or if
    the model is a GGUF file.
    """
    refuse_gguf(folder)
    if not folder.is_dir():
        raise ConfigError(
            f"`{MODEL}.name` is `{folder}`, and there is no such folder",
            hint="give a hub id such as `org/name`, or a folder that holds a config.json",
        )
    config = read_json(config_file(folder))
    language = _language(config)
    architecture, model_type = names_in(config)
    heads = first_positive(language, HEADS)
    return ModelFacts(
        folder=folder,
        architecture=architecture,
        model_type=model_type,
        num_attention_heads=heads,
        num_key_value_heads=first_positive(language, KEY_VALUE_HEADS) or heads,
        hidden_size=first_positive(language, HIDDEN),
        layers=first_positive(language, LAYERS),
        max_model_len=max_model_len(language),
        dtype=dtype_of(language, config),
        weight_bytes=_weight_bytes(folder),
        chat_template=_chat_template(folder),
        has_tokenizer=any(next(folder.glob(name), None) for name in TOKENIZERS),
    )


def config_file(folder: Path) -> Path:
    """The folder's config.json. Raises `ModelIncomplete` if it has none, `ConfigError` if the
    folder is missing, or the model is a GGUF file."""
    refuse_gguf(folder)
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder `{folder}`",
            hint="give a hub id such as `org/name`, or a folder that holds a config.json",
        )
    if not (folder / "config.json").is_file():
        raise ModelIncomplete(
            f"`{folder}` has no config.json",
            hint="a local model is a folder with config.json, tokenizer and weights, complete",
        )
    return folder / "config.json"


def stored_weight_bytes(folder: Path) -> int | None:
    """The size of a folder's tensors, from its index or the files; None: neither is complete.

    What an index says counts although the files it names are missing. Raises `ConfigError` for
    a damaged file.
    """
    for name in INDEXES:
        if (folder / name).is_file():
            metadata = read_json(folder / name).get("metadata")
            total = metadata.get("total_size") if isinstance(metadata, dict) else None
            if isinstance(total, int | float) and total > 0:
                return int(total)
    try:
        return _weight_bytes(folder)
    except ModelIncomplete:
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `ConfigError` if the file is damaged or cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be read: {error.strerror}", hint="check the file's permissions"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"`{path}` is damaged: {_what_it_is(path) or f'it is no JSON ({error})'}",
            hint="download the model again",
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            f"`{path}` is damaged: it holds no JSON object", hint="download the model again"
        )
    return found


# -- private -------------------------------------------------------------------------------


def _hub_cache(environ: Mapping[str, str]) -> Path:
    if cache := environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(home).expanduser() / "hub"


def _commit(hub: Path, revision: str) -> str | None:
    """The commit that a branch or tag is known to be at; a commit's own name is itself."""
    try:
        return (hub / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return revision if (hub / "snapshots" / revision).is_dir() else None


def _language(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that concerns the language model: mostly all of it."""
    for name in LANGUAGE_PARTS:
        part = config.get(name)
        if isinstance(part, dict) and (first_positive(part, HEADS) or first_positive(part, HIDDEN)):
            return part
    return config


def _chat_template(folder: Path) -> str | None:
    """From the template's own file, else from the tokenizer's settings; None if there is none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            written = read_json(folder / name).get("chat_template")
            if isinstance(written, list):  # several, by name
                named = {str(each.get("name")): each for each in written if isinstance(each, dict)}
                written = named.get("default", {}).get("template")
            if isinstance(written, str) and written:
                return written
    return None


def _weight_bytes(folder: Path) -> int:
    """The size of all weight files of a folder.

    Raises `ModelIncomplete` if there are none or some are missing, `ConfigError` for one that is
    shorter than its own header says.
    """
    files = _weight_files(folder)
    for file in files:
        if file.suffix == ".safetensors":
            _check_safetensors(file)
    return sum(file.stat().st_size for file in files)


def _weight_files(folder: Path) -> list[Path]:
    for name in INDEXES:
        if (folder / name).is_file():
            listed = read_json(folder / name).get("weight_map")
            if not isinstance(listed, dict) or not listed:
                raise ConfigError(
                    f"`{folder / name}` is damaged: it has no `weight_map`",
                    hint="download the model again",
                )
            return _all_there(folder, sorted({str(file) for file in listed.values()}), name)
    for pattern in WEIGHTS:
        if found := sorted(file.name for file in folder.glob(pattern) if file.is_file()):
            return _all_there(folder, found, "")
    raise ModelIncomplete(
        f"`{folder}` has no weights: no `.safetensors` and no `pytorch_model.bin`",
        hint="download the model again, with its weights",
    )


def _all_there(folder: Path, names: list[str], index: str) -> list[Path]:
    """The files of these names and, by their numbers, of those that belong to them."""
    wanted = sorted({part for name in names for part in _parts(name)})
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        says = f"`{index}` names" if index else "there should be"
        raise ModelIncomplete(
            f"`{folder}` lacks {len(missing)} of the {len(wanted)} weight files that {says}: "
            f"{_named(missing)}",
            hint="download the model again: what is there stays",
        )
    return [folder / name for name in wanted]


def _parts(name: str) -> Iterable[str]:
    match = NUMBERED.fullmatch(name)
    if match is None:
        return [name]
    return [
        f"{match['stem']}-{number:05d}-of-{match['count']}{match['suffix']}"
        for number in range(1, int(match["count"]) + 1)
    ]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:MOST_NAMED]) + more


def _check_safetensors(file: Path) -> None:
    """Compare the file's size with what its header promises: what a broken download leaves."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        header_bytes = int.from_bytes(opened.read(8), "little")
        header = opened.read(header_bytes) if header_bytes <= LONGEST_HEADER_BYTES else b""
    try:
        tensors: dict[str, Any] = json.loads(header)
        ends = [part["data_offsets"][1] for name, part in tensors.items() if name[:2] != "__"]
        needed = 8 + header_bytes + max(ends, default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        why = _what_it_is(file) or "its header cannot be read"
        raise ConfigError(
            f"`{file}` is damaged: {why}", hint="delete this file and download the model again"
        ) from None
    if size < needed:
        raise ConfigError(
            f"`{file}` is {size} bytes long, but its header says {needed}: it is not complete",
            hint="delete this file and download the model again",
        )


def _what_it_is(file: Path) -> str | None:
    """What is often found in the place of a model's file; None for anything else."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS and not the file itself (`git lfs pull` gets it)"
    return "it is a web page" if start.lstrip()[:1] == b"<" else None
