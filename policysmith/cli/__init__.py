"""The command line, one file a command; torch and all that needs it are imported when a command runs, not before."""

from policysmith.cli.app import app, main

__all__ = ["app", "main"]
