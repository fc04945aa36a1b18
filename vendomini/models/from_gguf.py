"""Makes the folder that engines load of a model in one GGUF file.

    python -m vendomini.models.from_gguf MODEL.gguf FOLDER

Needs the packages `torch`, `transformers` and `gguf`, where it runs.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import struct
import sys
import tempfile
from pathlib import Path

from vendomini.errors import ConfigError, VendoMiniError
from vendomini.models.gguf import MAGIC, READER, is_gguf

PACKAGES = {
    "torch": 'pip install "vendomini[hf]"',
    "transformers": 'pip install "vendomini[hf]"',
    "gguf": READER,
}
"""What the conversion imports, and how to get each."""

DTYPES = ("bfloat16", "float16", "float32")

UNFINISHED = ".unfinished-"
"""How the names of folders begin that are being made: one that is killed outright is left."""


def convert(file: Path, folder: Path, *, dtype: str = "bfloat16") -> None:
    """Write the model of a GGUF file as a folder: config.json, weights of `dtype`, tokenizer.

    The folder gets its name when all of it is there. Raises `ConfigError` for a file that is no
    GGUF or that transformers cannot read, for a folder that is there, and for missing packages.
    """
    _check_file(file)
    if folder.exists():
        raise ConfigError(f"`{folder}` is there already", hint="name a folder that is not")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"`{file}` is a GGUF file, and `{missing[0]}`, which reads it, is not installed",
            hint=" and ".join(dict.fromkeys(PACKAGES[name] for name in missing)),
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{folder.name}-", dir=folder.parent))
    try:
        _write(file, making, dtype)
        _open_to_others(making)
        os.rename(making, folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


# -- private -------------------------------------------------------------------------------


def _check_file(file: Path) -> None:
    try:
        if is_gguf(file):
            return
    except OSError as error:
        raise ConfigError(
            f"`{file}` cannot be read: {error.strerror}", hint="name a GGUF file"
        ) from None
    raise ConfigError(
        f"`{file}` is no GGUF file: it does not begin with `{MAGIC.decode()}`",
        hint="name a GGUF file, all of it",
    )


def _write(file: Path, folder: Path, dtype: str) -> None:
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **source,
            quantization_config=transformers.GgufConfig(dequantize=True),
            dtype=getattr(torch, dtype),
        )
    except (ValueError, IndexError, struct.error) as error:  # of what is cut short, each of them
        said = str(error).strip().splitlines()
        raise ConfigError(
            f"transformers {transformers.__version__} cannot read `{file}`: "
            f"{said[0] if said else type(error).__name__}",
            hint="download the file again, or use the model's own folder, as its makers publish it",
        ) from error
    try:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    except (OSError, SafetensorError) as error:  # a full disk is either
        raise ConfigError(
            f"`{folder.parent}` cannot take the model's folder: {error}",
            hint="make room there, or name a folder on another disk",
        ) from error


def _open_to_others(folder: Path) -> None:
    """Give the folder and its files the rights of any: a model is shared with a group."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        file.chmod((0o777 if file.is_dir() else 0o666) & ~mask)
    folder.chmod(0o777 & ~mask)


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(
        prog="python -m vendomini.models.from_gguf", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("file", type=Path, metavar="MODEL.gguf")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="which is made")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the weights")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # nothing half-made
    try:
        convert(asked.file, asked.folder, dtype=asked.dtype)
    except VendoMiniError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(asked.folder)


if __name__ == "__main__":
    main()
