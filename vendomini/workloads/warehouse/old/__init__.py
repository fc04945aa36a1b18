"""The predecessor's results as the tables that `collect` writes, so that both can be joined.

What it never measured is missing there, never 0: its logs say 0 for every prediction error,
because none was ever resolved. What its files cannot tell is missing too, such as the outcome
of a folder into which several runs were written.
"""

from vendomini.predecessor.tables import Imported, import_results

__all__ = ["Imported", "import_results"]
