"""When a request may be sent to an API: as fast as the API takes it, and hardly at all while it is down."""

from .pacer import PATIENCE, Pacer

__all__ = ["PATIENCE", "Pacer"]
