"""What measures speed: one file a question, each against a named rival in the same run. Never part of the tests."""
