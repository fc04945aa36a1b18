"""`vendomini fit`, as the command line has it."""

from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import Command, Json


def register(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command(
        name="fit",
        cls=Command,
        epilog="Examples:\n\n"
        "  vendomini fit Qwen/Qwen3-32B\n\n"
        "  vendomini fit Qwen/Qwen2.5-72B-Instruct --gpu A100-80\n\n"
        "  vendomini fit Qwen/Qwen3-32B --gpu H100 --gpus 1 --max-model-len 32000\n\n"
        "  vendomini fit --batch deployments.csv",
    )(fit_command)


def fit_command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A hub id, a local folder, or a size, such as 70B.",
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="NAME",
            help="A GPU, such as H100, A100-80 or L40S. Without it, the usual ones.",
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            metavar="N",
            min=1,
            help="Check this number of GPUs. Without it, find the smallest number.",
        ),
    ] = None,
    tensor_parallel_size: Annotated[
        int | None,
        typer.Option(
            "--tensor-parallel-size",
            metavar="T",
            min=1,
            help="Check this tensor parallel size (TP).",
        ),
    ] = None,
    pipeline_parallel_size: Annotated[
        int | None,
        typer.Option(
            "--pipeline-parallel-size",
            metavar="P",
            min=1,
            help="Check this pipeline parallel size (PP).",
        ),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantization", metavar="Q", help="Assume weights stored as fp8, awq, bf16, ..."
        ),
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            "--max-model-len",
            metavar="L",
            min=1,
            help="The longest conversation, in tokens. Default: the model's own limit, "
            "at most 8192.",
        ),
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            "--max-num-seqs",
            metavar="N",
            min=1,
            help="Replies at the same time. Default: the engine's own.",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="B",
            help="vllm, hf, or auto: vllm if it can run the model, else hf.",
        ),
    ] = "auto",
    gpus_per_node: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-node", metavar="G", min=1, help="Default: what is usual for this GPU."
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
            help="Answer each line of a CSV file with a line of JSON.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find how many GPUs a model needs, or check whether it works on the given ones."""
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
