"""A model in one GGUF file, as llama.cpp has it: told apart, and refused with what converts it."""

import importlib.util
import shlex
import sys
from pathlib import Path

from vendomini.errors import ConfigError

MAGIC = b"GGUF"
READER = f"{shlex.quote(sys.executable)} -m pip install gguf"
"""How to get the package that transformers reads such files with."""


def is_gguf(file: Path) -> bool:
    """Whether a file says that it is one; its name says nothing."""
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC


def refuse_gguf(path: Path) -> None:
    """Raise `ConfigError`, with the command that converts it, where a model is a GGUF file, or a
    folder that has one in the place of a config.json or of other weights."""
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        others = [*path.glob("*.safetensors"), *path.glob("*.bin")]
        if not files or ((path / "config.json").is_file() and others):
            return
        what = f"`{path}` holds its model as a GGUF file, `{files[0].name}`"
    elif path.is_file() and (path.suffix == ".gguf" or is_gguf(path)):
        files, what = [path], f"model `{path}` is a GGUF file"
    else:
        return
    raise ConfigError(
        f"{what}, which neither vLLM nor transformers is given here: they load a folder",
        hint=f"make one, and name it: {command_for(files[0])}",
    )


def command_for(file: Path) -> str:
    """What to type to make the folder of a GGUF file, beside it."""
    reads = "" if importlib.util.find_spec("gguf") else f"{READER} && "
    folder = file.with_suffix("") if file.suffix == ".gguf" else file.with_name(f"{file.name}-hf")
    words = (sys.executable, "-m", "vendomini.models.from_gguf", str(file), str(folder))
    return f"{reads}{shlex.join(words)}"
