"""What the predecessor left: its phase files in today's words (`words`), and its results as the
tables that `collect` writes (`tables`), so that both can be joined.

What it never measured is missing there, never 0: its logs say 0 for every prediction error,
because none was ever resolved. What its files cannot tell is missing too, such as the outcome
of a folder into which several runs were written.
"""
