"""Measures the app and its parts on the loopback interface, against what one would use instead: `make bench`."""
