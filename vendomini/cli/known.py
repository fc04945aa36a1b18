"""What is known of which model, and where each fact comes from, in the terminal."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vendomini.cli import show
from vendomini.errors import ConfigError
from vendomini.hardware import GIB
from vendomini.models import catalogue
from vendomini.models.lookup import model_spec
from vendomini.models.spec import ModelSpec

SHORT = 30
"""Characters of a source that is said beside each fact, not below them all."""


def list_models(match: str | None, *, as_json: bool) -> None:
    """The models that are known without their files. Raises `ConfigError` if none matches."""
    wanted = (match or "").lower()
    chosen = [
        entry
        for entry in catalogue.entries()
        if any(wanted in name.lower() for name in (entry.id, *entry.aliases))
    ]
    if not chosen:
        raise ConfigError(
            f"the catalogue has no model whose name contains `{match}`",
            hint="`vendomini models` lists all; `vendomini models show ID` takes any name "
            "with a size in it",
        )
    specs = [(entry, entry.spec()) for entry in chosen]
    if as_json:
        records = [
            {**_record(spec), "aliases": list(entry.aliases), "source": entry.source}
            for entry, spec in specs
        ]
        print(json.dumps(records, ensure_ascii=False, default=dict))
        return
    rows = [("model", "parameters", "active", "context", "16-bit GiB", "stored as")]
    for entry, spec in specs:
        active = billions(spec.active_params) if spec.is_moe else "-"
        context = f"{spec.max_model_len:,}" if spec.max_model_len else "-"
        size = f"{2 * spec.params / GIB:,.1f}"
        rows.append((entry.id, billions(spec.params), active, context, size, _stored(spec)))
    _columns(rows, right=range(1, 5))


def show_model(model: str, *, as_json: bool) -> None:
    """What is known of one model."""
    spec = model_spec(model)
    if as_json:
        print(json.dumps(_record(spec), ensure_ascii=False, default=dict))
        return
    show_facts(spec)


def show_facts(spec: ModelSpec) -> None:
    """Print each fact of a model, and where it comes from."""
    facts, notes = _facts(spec), _notes(spec)
    rows = [("fact", "value", "from"), *facts]
    _columns([(fact, value, _shortened(source, notes)) for fact, value, source in rows])
    for number, note in enumerate(notes, start=1):
        show.OUT.print(f"[{number}] {note}", markup=False, soft_wrap=True)


def billions(params: int) -> str:
    """``8.03B``, ``124M``: as models' names say it."""
    if params < 950e6:
        return f"{params / 1e6:.0f}M"
    return f"{params / 1e9:.2f}B" if params < 100e9 else f"{params / 1e9:.0f}B"


# -- private -------------------------------------------------------------------------------


def _columns(rows: Sequence[tuple[str, ...]], *, right: Iterable[int] = ()) -> None:
    """One line a row, whatever the terminal's width: what is listed can be searched."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        show.OUT.print("  ".join(cells).rstrip(), markup=False, soft_wrap=True)


def _notes(spec: ModelSpec) -> list[str]:
    """What several facts come from, said once below them."""
    long = spec.sources.get("catalogue") or spec.sources.get("sizes", "")
    return [long] if len(long) > SHORT else []


def _shortened(source: str, notes: Sequence[str]) -> str:
    for number, note in enumerate(notes, start=1):
        source = source.replace(note, f"[{number}]")
    return source


def _stored(spec: ModelSpec) -> str:
    if spec.quantization is None:
        return "16 bits"
    bits = 8 * spec.quantization.weight_bytes_each
    return f"{spec.quantization.method}, {bits:.3g} bits"


def _facts(spec: ModelSpec) -> list[tuple[str, str, str]]:
    said = spec.sources
    sizes = said.get("sizes", said.get("params", ""))
    rows: list[tuple[str, str, str]] = []
    if "id" in said:
        rows.append(("known", said["id"], said.get("catalogue", "")))
    if spec.is_guess:
        rows.append(("known", "only by its size: dimensions are guessed", ""))
    rows += [
        ("architecture", f"{spec.architecture or '-'} ({spec.model_type or '-'})", sizes),
        ("parameters", f"{billions(spec.params)} ({spec.params:,})", said.get("params", sizes)),
        ("read for a token", billions(spec.active_params), said.get("params", sizes)),
        ("weights", _weights(spec), said.get("weight_bytes", "")),
        ("stored as", _stored(spec), said.get("quantization", sizes)),
        ("layers", f"{spec.layers} of {spec.hidden_size} channels", sizes),
        ("heads", f"{spec.num_attention_heads}, {spec.num_key_value_heads} for KV", sizes),
    ]
    if spec.is_moe:
        experts = f"{spec.experts_per_token} of {spec.num_experts} ({spec.moe_intermediate_size})"
        rows.append(("experts", f"{experts}, {billions(spec.expert_params)} in all", sizes))
    if spec.vision_params:
        rows.append(("other senses", billions(spec.vision_params), sizes))
    rows.append(("KV cache", f"{spec.kv_bytes_per_token() / 1024:,.1f} KiB a token", _cache(spec)))
    if spec.state_bytes:
        rows.append(("state", f"{spec.state_bytes / 2**20:,.1f} MiB a conversation", sizes))
    context = f"{spec.max_model_len:,} tokens" if spec.max_model_len else "not said"
    rows.append(("context", context, sizes))
    return rows


def _weights(spec: ModelSpec) -> str:
    margin = f", give or take {spec.weight_margin:.0%}" if spec.weight_margin else ""
    return f"{spec.weight_bytes / GIB:,.2f} GiB{margin}"


def _cache(spec: ModelSpec) -> str:
    return "; ".join(
        f"{group.layers} {group.kind} layers"
        + (f" (window {group.window:,})" if group.window else "")
        for group in spec.cache
    )


def _record(spec: ModelSpec) -> dict[str, Any]:
    record: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in asdict(spec).items()
    }
    record["kv_bytes_per_token"] = spec.kv_bytes_per_token()
    return record
