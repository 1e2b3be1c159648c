"""A stand-in for the protected Business API and its token endpoint, for trying the app out and for its tests."""
