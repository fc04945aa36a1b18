"""What lies in an experiment's folder and is none of its records: looked for, and named.

Whoever needs a record passes over what is none. This is for people who ask how things stand.
"""

import re

import msgspec

from vendomini.errors import DiskError
from vendomini.store.claims import CLAIM
from vendomini.store.experiment import RESULT, Experiment
from vendomini.store.records import UNREADABLE

NAMES = {
    "claims": CLAIM,
    "logs": re.compile(r"[^.]+\.(replies\.jsonl|steps\.jsonl|engine\.log)"),
    "pins": RESULT,
    "plans": re.compile(r"\d+\.json"),
    "jobs": re.compile(r"\d+"),
    "archive": re.compile(r"\d+"),
    "locks": re.compile(r"\d+\.json"),
}
MAY_BE_EMPTY = frozenset({"logs", "jobs", "archive", "locks"})


def look_round(experiment: Experiment) -> None:
    """Note in `experiment.odd` what nobody reads, and records that cannot be read.

    Listings of all folders; of claims, which are many, only that they are not empty.
    """
    for folder, pattern in NAMES.items():
        try:
            stamps = experiment.disk.stamps(experiment.path(folder))
        except DiskError as error:
            experiment.note_odd(experiment.path(folder), str(error))
            continue
        for name, stamp in stamps.items():
            path = experiment.path(folder, name)
            match = pattern.fullmatch(name)
            if match is None:
                experiment.note_odd(path, "it is nothing of this experiment")
            elif not stamp.size and folder not in MAY_BE_EMPTY and ".released" not in name:
                experiment.note_odd(path, "it is empty, or leads nowhere")
    for name in experiment.disk.names(experiment.path("pins")):
        if (match := RESULT.fullmatch(name)) is not None:
            experiment.pinned(match[1])
    experiment.errors()
    experiment.slurm_jobs()
    _look_at_json(experiment)


# -- private -------------------------------------------------------------------------------


def _look_at_json(experiment: Experiment) -> None:
    """Files that are read by people and by workers of one job."""
    plans = [experiment.path("plans", f"{each}.json") for each in experiment.numbers("plans")]
    jobs = [experiment.path("jobs", str(each), "job.json") for each in experiment.numbers("jobs")]
    for path in (*plans, *jobs):
        try:
            msgspec.json.decode(experiment.disk.read(path) or b"{}")
        except (DiskError, *UNREADABLE) as error:
            experiment.note_odd(path, f"it cannot be read: {error}")
    for path in (experiment.path("phase.yaml"), experiment.path("runs.jsonl")):
        try:
            if not (experiment.disk.read(path) or b"").strip(b"\0 \n"):
                experiment.note_odd(path, "it is empty, or missing: the next `run` writes it")
        except DiskError as error:
            experiment.note_odd(path, str(error))
