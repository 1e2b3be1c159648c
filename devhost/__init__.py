"""An embedded Azure Functions host: runs a durable Python function app with pip alone, for development and tests."""
