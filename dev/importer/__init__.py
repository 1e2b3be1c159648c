"""Imports a file of records through the app, each once, whatever is interrupted: `python -m dev.importer`."""
