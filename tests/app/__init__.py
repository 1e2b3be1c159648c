"""Tests of the app: its parts, its decisions, and the whole way on real sockets."""
