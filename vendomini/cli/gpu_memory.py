"""One GPU's memory, as a bar and in numbers."""

from typing import Final

from rich.table import Table
from rich.text import Text

from vendomini.cli import show
from vendomini.hardware import GIB
from vendomini.planner.deployment import MemoryUse

BAR: Final = 60  # characters of a GPU's memory

PARTS: Final = (
    ("weights", "weights", "█", "blue"),
    ("activations", "activations", "▓", "yellow"),
    ("overhead", "context and NCCL", "▒", "magenta"),
    ("graphs", "CUDA graphs", "▒", "red"),
    ("reserve", "reserve, left alone", "░", "bright_black"),
    ("kv", "KV cache of one conversation", "■", "green"),
    ("free", "free, for further conversations", "·", "white"),
)
"""The parts of a GPU's memory in the bar's order: name, words, letter, colour. The letters differ
so that the bar can be read without colours."""


def show_memory(memory: MemoryUse) -> None:
    """Print the bar and its legend in GiB."""
    show.OUT.print(bar(memory), soft_wrap=True)
    show.OUT.print(legend(memory))


def shares(memory: MemoryUse) -> dict[str, int]:
    """Bytes of one GPU by what they are for; the cache is what one conversation needs, what is
    left of its room is free."""
    room = max(0, memory.kv)
    kv = min(memory.kv_bytes_per_sequence, room)
    return {
        "weights": memory.weights,
        "activations": memory.activations,
        "overhead": memory.overhead,
        "graphs": memory.graphs,
        "reserve": memory.reserve,
        "kv": kv,
        "free": room - kv,
    }


def bar(memory: MemoryUse) -> Text:
    """One GPU's memory as a line; what does not fit goes beyond its end."""
    text, sizes = Text(), shares(memory)
    done = drawn = 0
    for name, _, letter, style in PARTS:
        done += sizes[name]
        upto = round(done / memory.total * BAR)
        text.append(letter * (upto - drawn), style=style)
        drawn = max(drawn, upto)
    return text


def legend(memory: MemoryUse) -> Table:
    """The parts of a GPU's memory in GiB."""
    table, sizes = Table(box=None, show_header=False, padding=(0, 2, 0, 0)), shares(memory)
    for name, words, letter, style in PARTS:
        table.add_row(Text(letter, style=style), words, f"{sizes[name] / GIB:,.2f} GiB")
    table.add_row("", "in all", f"{memory.total / GIB:,.2f} GiB")
    if memory.margin < 0:
        table.add_row("", Text("short by", style="red"), f"{-memory.margin / GIB:,.2f} GiB")
    return table
