"""`vendomini fit`, as the command line has it."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command(
        name="fit",
        epilog="Examples:\n\n"
        "  vendomini fit Qwen/Qwen2.5-72B-Instruct --gpu A100-80\n\n"
        "  vendomini fit Qwen/Qwen3-32B --gpu H100 --gpus 1 --max-model-len 32000\n\n"
        "  vendomini fit --batch deployments.csv",
    )(fit_command)


def fit_command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A hub id, a local folder, or a size.", show_default=False
        ),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME", help="Such as H100, A100-80, L40S.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", metavar="N", min=1, help="Does it work on so many? Else: how many?"),
    ] = None,
    tensor_parallel_size: Annotated[
        int | None, typer.Option("--tensor-parallel-size", metavar="T", min=1)
    ] = None,
    pipeline_parallel_size: Annotated[
        int | None, typer.Option("--pipeline-parallel-size", metavar="P", min=1)
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option("--quantization", metavar="Q", help="As if stored so: fp8, awq, bf16, ..."),
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            "--max-model-len",
            metavar="L",
            min=1,
            help="Longest conversation in tokens; by default the model's own, at most 8192.",
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            "--max-num-seqs", metavar="N", min=1, help="Replies at once; by default the engine's."
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend", metavar="B", help="vllm, hf, or auto: vllm, and hf where vllm cannot."
        ),
    ] = "auto",
    gpus_per_node: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-node", metavar="G", min=1, help="By default as the GPU is usually built in."
        ),
    ] = None,
    config_json: Annotated[
        Path | None,
        typer.Option(
            "--config-json", metavar="FILE", readable=False, help="The model's config.json."
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch",
            metavar="FILE",
            readable=False,
            help="A CSV file of questions: one JSON line each.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: JSON on stdout.")] = False,
) -> None:
    """What a model takes of a GPU: the smallest deployment, or whether a given one works."""
    from vendomini.cli.fitting import Request, fit

    fit(
        Request(
            model=model,
            gpu=gpu,
            gpus=gpus,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            quantization=quantization,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            backend=backend,
            gpus_per_node=gpus_per_node,
            config_json=config_json,
            batch=batch,
            as_json=as_json,
        )
    )
