"""The command line: parse, call one function, print. Data to stdout, everything else to stderr."""
