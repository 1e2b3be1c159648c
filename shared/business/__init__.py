"""The business record and the API that it is posted to: what to edit for an API of one's own."""
