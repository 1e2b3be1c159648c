"""Tests of the app under faults: its process is killed while it works, and the API fails in every way it knows."""
