"""The app tried out: records to post, a demo that posts them, and a way to keep everything up."""
