"""An experiment on disk: its names, its claims, its heartbeats, its logs."""
