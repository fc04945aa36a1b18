"""What a GPU and an engine permit: why a model cannot run there, and in which type it runs.

The rules are vLLM 0.32's and transformers 5's own, read in their sources; where another version
matters it is named. They say what starts, not what is fast.
"""

import math
from dataclasses import dataclass

from vendomini.hardware import GpuSpec
from vendomini.models.spec import ModelSpec
from vendomini.models.support import transformers_knows, versions, vllm_knows
from vendomini.planner.deployment import Backend

VLLM_CAPABILITY = 7.5
"""vLLM's wheels hold no code for older cards (since 0.20: 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0)."""
TORCH_CAPABILITY = 7.5
"""torch's default wheels begin here since CUDA 12.8; those for CUDA 12.6 begin at 5.0."""
BFLOAT16_CAPABILITY = 8.0
FLASH_CAPABILITY = 8.0
FLASH_HEAD_DIM = 256
"""flash-attn 2: compute capability 8.0 or more, 16-bit types, heads of at most 256."""
SPARSE_CAPABILITY = 9.0
"""All of vLLM's kernels for sparse latent attention name 9, 10 or 12 as the major version."""

VLLM_GFX = ("gfx90a", "gfx942", "gfx950")
FP8_GFX = ("gfx942", "gfx950")

# Their activations leave float16's range (vLLM: `_FLOAT16_NOT_SUPPORTED_MODELS`).
NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
# Attention over an index of chosen tokens, without a kernel below SPARSE_CAPABILITY.
SPARSE = frozenset({"deepseek_v32", "deepseek_v4", "glm_moe_dsa"})
# What the models' classes of transformers 5.23 say: `_supports_sdpa`, and `_supports_flash_attn`
# with `_compatible_flash_implementations` (attention sinks and some indices rule out flash-attn 2).
NO_SDPA = frozenset({
    "bloom", "codegen", "deepseek_v4", "flint", "gemma2", "gpt_neo", "gpt_oss", "gptj",
    "granite_swa", "granitemoe_swa", "hy_v4", "mimo_v2_flash", "mpt", "vaultgemma",
})  # fmt: skip
NO_FLASH = frozenset({
    "axk2", "bloom", "codegen", "deepseek_v32", "deepseek_v4", "doge", "flint", "glm5_next",
    "glm_moe_dsa", "gpt_oss", "granite_swa", "granitemoe_swa", "hy_v4", "llama4", "llama4_text",
    "mimo_v2_flash", "minimax_m3_vl", "mistral_large4", "mpt", "qwen4_exp", "step3p7",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needs:
    """The least compute capability of a method by backend; None: that backend has it not."""

    vllm: float | None
    hf: float | None
    gfx: tuple[str, ...] = VLLM_GFX  # with vLLM on ROCm
    dequantized_below: float = 0.0  # hf: there the weights are loaded in 16 bits


# vLLM: `get_min_capability` of each method, where weights are 8 or 4 bits wide on cards without
# such units by Marlin (7.5). transformers: its quantizers' checks.
_METHODS = {
    "fp8": _Needs(vllm=7.5, hf=0.0, gfx=FP8_GFX, dequantized_below=8.9),
    "fbgemm_fp8": _Needs(vllm=8.0, hf=9.0, gfx=FP8_GFX),
    "modelopt": _Needs(vllm=8.0, hf=None, gfx=FP8_GFX),
    "mxfp8": _Needs(vllm=8.0, hf=0.0, gfx=FP8_GFX, dequantized_below=8.9),
    "int8": _Needs(vllm=7.5, hf=0.0),
    "awq": _Needs(vllm=7.5, hf=7.5),
    "gptq": _Needs(vllm=7.5, hf=6.0),
    "int4": _Needs(vllm=7.5, hf=7.5),
    "compressed-tensors": _Needs(vllm=7.5, hf=0.0),
    "auto-round": _Needs(vllm=7.5, hf=7.5),
    "moe_wna16": _Needs(vllm=7.5, hf=None, gfx=()),
    "experts_int8": _Needs(vllm=8.0, hf=None, gfx=()),
    "torchao": _Needs(vllm=7.5, hf=7.5),
    "quark": _Needs(vllm=7.5, hf=7.5),
    # transformers keeps it packed with the `kernels` package, which our `hf` extra does not have.
    "mxfp4": _Needs(vllm=8.0, hf=0.0, dequantized_below=math.inf),
    "modelopt_fp4": _Needs(vllm=7.5, hf=None),  # transformers' own NVFP4 is another format
    "fp_quant": _Needs(vllm=10.0, hf=9.0, gfx=()),
    "bitsandbytes": _Needs(vllm=None, hf=6.0),
    "gguf": _Needs(vllm=None, hf=0.0, dequantized_below=math.inf),
}
_SAME = {
    "fp8_block": "fp8",
    "fp8_per_tensor": "fp8",
    "fp8_per_block": "fp8",
    "fp8_per_channel": "fp8",
    "deepseek_v4_fp8": "fp8",
    "auto_awq": "awq",
    "awq_marlin": "awq",
    "auto_gptq": "gptq",
    "gptq_marlin": "gptq",
    "gptq_int8": "gptq",
    "gptq_int4": "gptq",
    "inc": "auto-round",
    "gpt_oss_mxfp4": "mxfp4",
    "nvfp4": "modelopt_fp4",
    "nvfp4_per_token": "modelopt_fp4",
    "modelopt_mixed": "modelopt_fp4",
    "modelopt_mxfp8": "mxfp8",
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
}
_OFFERED = ("fp8", "int8", "awq", "gptq", "mxfp4", "modelopt_fp4", "bitsandbytes")


def cannot_run(model: ModelSpec, gpu: GpuSpec, backend: Backend) -> str | None:
    """Why `backend` cannot serve `model` on `gpu` at all, whatever their number; None if it can."""
    missing = _engine_lacks_gpu(gpu, backend)
    if missing is not None:
        return missing
    missing = _engine_lacks_model(model, backend)
    if missing is not None:
        return missing
    if model.quantization is not None:
        missing = _method_lacks(model.quantization.method, gpu, backend)
        if missing is not None:
            return missing
    capability = gpu.compute_capability
    if (
        backend == "vllm"
        and model.model_type in SPARSE
        and capability is not None
        and capability < SPARSE_CAPABILITY
    ):
        return (
            f"vLLM's sparse latent attention needs compute capability {SPARSE_CAPABILITY}, "
            f"{gpu.name} has {capability}"
        )
    return None


def usable_quantizations(gpu: GpuSpec, backend: Backend) -> tuple[str, ...]:
    """The methods that save memory on `gpu`, in a fixed order; empty if the engine lacks it."""
    if _engine_lacks_gpu(gpu, backend) is not None:
        return ()
    return tuple(
        method
        for method in _OFFERED
        if _method_lacks(method, gpu, backend) is None and not _is_dequantized(method, gpu, backend)
    )


def least_capability(method: str, backend: Backend) -> float | None:
    """The compute capability that `method` asks for; None: that backend has it not, or no rule."""
    needs = _needs(method)
    return None if needs is None else needs.vllm if backend == "vllm" else needs.hf


def loads_dequantized(model: ModelSpec, gpu: GpuSpec, backend: Backend) -> bool:
    """Whether the quantised weights are loaded in 16 bits there, so that they save no memory.

    transformers does so for FP8 below compute capability 8.9, for MXFP4 (without the package
    `kernels`) and for GGUF.
    """
    method = model.quantization.method if model.quantization is not None else None
    return method is not None and _is_dequantized(method, gpu, backend)


def runtime_dtype(model: ModelSpec, gpu: GpuSpec) -> str:
    """``bfloat16``, ``float16`` or ``float32``: what activations, cache and plain weights are in.

    As vLLM's ``--dtype auto``: float32 checkpoints are served in 16 bits, and a card without
    bfloat16 (below 8.0) gets float16, or float32 for models that overflow in it.
    """
    has_bfloat16 = gpu.compute_capability is None or gpu.compute_capability >= BFLOAT16_CAPABILITY
    if model.model_type in NO_FLOAT16:
        return "bfloat16" if has_bfloat16 else "float32"
    if not has_bfloat16 or model.dtype == "float16":
        return "float16"
    return "bfloat16"


def refused_dtype(model: ModelSpec, gpu: GpuSpec, backend: Backend, dtype: str) -> str | None:
    """Why the engine does not serve the model there in the `dtype` that is asked for.

    vLLM refuses bfloat16 below compute capability 8.0, and float16 for models that overflow in it;
    transformers tries everything.
    """
    if backend == "hf":
        return None
    capability = gpu.compute_capability
    if dtype == "bfloat16" and capability is not None and capability < BFLOAT16_CAPABILITY:
        return (
            f"vLLM needs compute capability {BFLOAT16_CAPABILITY} for bfloat16, {gpu.name} has "
            f"{capability}: `engine.dtype` may be `float16` or `float32`"
        )
    if dtype == "float16" and model.model_type in NO_FLOAT16:
        return (
            f"vLLM does not serve {model.model_type} models in float16, whose range they leave: "
            "`engine.dtype` may be `bfloat16` or `float32`"
        )
    return None


def attention(model: ModelSpec | None, gpu: GpuSpec, backend: Backend) -> str:
    """The attention implementation, as the engine names it.

    hf: ``flash_attention_2``, ``sdpa`` or ``eager``; vllm: its first choice of backend on this
    GPU (`platforms/cuda.py`), such as ``FLASH_ATTN``. `model` None: one that asks nothing special.
    """
    if backend == "vllm":
        return _vllm_attention(gpu, model)
    model_type = model.model_type if model is not None else None
    has_flash = (
        gpu.compute_capability is not None
        and gpu.compute_capability >= FLASH_CAPABILITY
        and (model is None or head_dim(model) <= FLASH_HEAD_DIM)
        and model_type not in NO_FLASH
    )
    if has_flash:
        return "flash_attention_2"
    return "eager" if model_type in NO_SDPA else "sdpa"


def head_dim(model: ModelSpec) -> int:
    """The widest attention head, in elements; latent ones are 192 wide when they are unpacked."""
    return max((192 if c.kind == "latent" else c.width // 2 for c in model.cache), default=0)


def advice(gpu: GpuSpec, backend: Backend) -> str | None:
    """What the environment of `backend` must be for `gpu`, where the usual one will not do."""
    if gpu.vendor == "amd":
        name = "vLLM" if backend == "vllm" else "torch"
        return f"{gpu.name} needs {name} built for ROCm"
    if gpu.compute_capability is not None and gpu.compute_capability < TORCH_CAPABILITY:
        return (
            f"{gpu.name} needs a torch built for CUDA 12.6: those for later ones begin at "
            f"compute capability {TORCH_CAPABILITY}"
        )
    return None


def _engine_lacks_gpu(gpu: GpuSpec, backend: Backend) -> str | None:
    if gpu.vendor == "cpu":
        return f"{gpu.name} is no GPU"
    if backend == "hf":
        return None
    if gpu.vendor == "amd":
        if gpu.gfx in VLLM_GFX:
            return None
        return f"vLLM's ROCm build is for {', '.join(VLLM_GFX)}, {gpu.name} is {gpu.gfx}"
    if gpu.compute_capability is None or gpu.compute_capability < VLLM_CAPABILITY:
        return (
            f"vLLM needs compute capability {VLLM_CAPABILITY} (its wheels since 0.20), "
            f"{gpu.name} has {gpu.compute_capability}"
        )
    return None


def _engine_lacks_model(model: ModelSpec, backend: Backend) -> str | None:
    """Why the engine has no code for the model; what nobody has said is taken to be known."""
    has_transformers = model.model_type is None or transformers_knows(model.model_type)
    if backend == "hf":
        if has_transformers:
            return None
        return f"transformers {versions()['transformers']} does not know {model.model_type} models"
    # What vLLM has no class of its own for, it runs on transformers' (`model_impl=auto`).
    if (
        model.architecture is None
        or vllm_knows(model.architecture)
        or (model.model_type is not None and has_transformers)
    ):
        return None
    return f"vLLM {versions()['vllm']} does not know the architecture {model.architecture}"


def _method_lacks(method: str, gpu: GpuSpec, backend: Backend) -> str | None:
    needs = _needs(method)
    if needs is None:
        return None  # a method that came after these rules: the engine will say
    engine = f"vLLM {versions()['vllm']}" if backend == "vllm" else "transformers"
    least = needs.vllm if backend == "vllm" else needs.hf
    if least is None:
        return f"{engine} does not load {method} checkpoints"
    if gpu.vendor == "amd":
        if backend == "vllm" and gpu.gfx not in needs.gfx:
            return f"{engine} has no {method} for {gpu.gfx}, which {gpu.name} is"
        return None
    if gpu.compute_capability is None or gpu.compute_capability < least:
        return (
            f"{engine} needs compute capability {least} for {method}, "
            f"{gpu.name} has {gpu.compute_capability}"
        )
    return None


def _is_dequantized(method: str, gpu: GpuSpec, backend: Backend) -> bool:
    needs = _needs(method)
    if backend != "hf" or needs is None or not needs.dequantized_below:
        return False
    if gpu.compute_capability is None:
        return needs.dequantized_below == math.inf or gpu.gfx not in needs.gfx
    return gpu.compute_capability < needs.dequantized_below


def _needs(method: str) -> _Needs | None:
    name = method.lower()
    return _METHODS.get(name) or _METHODS.get(_SAME.get(name.replace("-", "_"), ""))


def _vllm_attention(gpu: GpuSpec, model: ModelSpec | None) -> str:
    is_latent = model is not None and any(c.kind == "latent" for c in model.cache)
    if gpu.compute_capability is None:
        return "TRITON_MLA" if is_latent else "TRITON_ATTN"
    major = int(gpu.compute_capability)
    if is_latent:
        return {9: "FLASH_ATTN_MLA", 10: "FLASHINFER_MLA"}.get(major, "TRITON_MLA")
    if gpu.compute_capability < FLASH_CAPABILITY:
        return "FLASHINFER"
    return "FLASHINFER" if major == 10 else "FLASH_ATTN"
