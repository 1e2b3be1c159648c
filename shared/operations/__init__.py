"""The HTTP resource that callers see: an operation is the delivery of one record or of a batch."""
