"""Tests of the command that imports a file."""
