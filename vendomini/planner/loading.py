"""What an engine can quantise while it loads a model: pure.

A checkpoint that is quantised already is loaded as it is. What `engine.quantization` asks of a
plain one is done by the engine itself: vLLM's online methods (`vllm.config.quantization`, 0.32),
bitsandbytes with transformers.
"""

from collections.abc import Mapping

from vendomini.errors import ConfigError
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend
from vendomini.schema import nearest

WHILE_LOADING: Mapping[Backend, Mapping[str, str]] = {
    "vllm": {
        "fp8": "fp8",
        "fp8_per_tensor": "fp8",
        "fp8_per_channel": "fp8",
        "fp8_per_block": "fp8_block",
        "mxfp8": "mxfp8",
        "mxfp4": "mxfp4",
        "nvfp4_per_token": "nvfp4",
        "int8_per_channel_weight_only": "int8",
    },
    "hf": {"bitsandbytes-8bit": "bitsandbytes_int8", "bitsandbytes-4bit": "bitsandbytes"},
}
"""What each backend quantises a plain checkpoint to, and our name for how that is stored."""


def as_loaded(model: ModelSpec, asked: str | None) -> tuple[ModelSpec, dict[Backend, str]]:
    """The model as `engine.quantization` wants it loaded, and the backends that cannot, with why.

    Raises `ConfigError` if none can.
    """
    own = model.quantization
    if asked is None or (own is not None and own.method.startswith(asked)):
        return model, {}
    if own is not None:
        raise ConfigError(
            f"`engine.quantization` is `{asked}`, but the checkpoint of model `{model.id}` is "
            f"quantised already, by `{own.method}`",
            hint="remove `engine.quantization`, or name a checkpoint that is not quantised",
        )
    able = {backend: words for backend, words in WHILE_LOADING.items() if asked in words}
    if not able:
        words = [word for known in WHILE_LOADING.values() for word in known]
        raise ConfigError(
            f"`engine.quantization` is `{asked}`, which no engine quantises to while it loads",
            hint=f"did you mean `{nearest(asked, words)}`? vllm: "
            f"{', '.join(WHILE_LOADING['vllm'])}; hf: {', '.join(WHILE_LOADING['hf'])}. For others "
            "name a checkpoint that is stored so",
        )
    cannot: dict[Backend, str] = {
        backend: f"it cannot quantise to `{asked}` while it loads"
        for backend in WHILE_LOADING
        if backend not in able
    }
    return requantized(model, next(iter(able.values()))[asked]), cannot
