"""What becomes of a record on its way to the API, as pure functions: safe to replay and easy to test."""
