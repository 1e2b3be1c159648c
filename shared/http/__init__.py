"""What the token sources and the typed client both know of HTTP; the standard library and httpx are all it needs."""
