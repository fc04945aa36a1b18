"""One process that plays many runs on one engine: claim, replay, log, publish, drain."""
