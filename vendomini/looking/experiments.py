"""Which experiment is meant."""

import difflib
from pathlib import Path

from vendomini.errors import StoreError
from vendomini.store.experiment import Experiment


def experiment_named(folder: Path, root: Path) -> Experiment:
    """By folder, or by name below the root. Raises `StoreError` if there is no such."""
    places = list(dict.fromkeys((folder, root / folder)))
    for place in places:
        experiment = Experiment(place)
        if experiment.exists():
            return experiment
    names = names_below(root)
    neither = f", and neither is `{places[1]}`" if len(places) > 1 else ""
    near = difflib.get_close_matches(folder.name, names, n=1)
    there_are = f"there are: {', '.join(names)}" if names else f"there is none below `{root}`"
    raise StoreError(
        f"`{folder}` is no experiment{neither}",
        hint=(f"did you mean `{near[0]}`? " if near else "") + there_are,
    )


def names_below(root: Path) -> list[str]:
    """The experiments in a folder, by name."""
    return sorted(path.parent.name for path in root.glob("*/experiment.json"))
