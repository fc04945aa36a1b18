"""The old command line: ``run_experiment.py --config FILE [--cluster] [--n-jobs N]``."""

import sys

from vendomini.cli.start import main

sys.argv[1:] = ["run", *sys.argv[1:]]
main()
