"""Tests of the access tokens, against real sockets on the loopback interface."""
