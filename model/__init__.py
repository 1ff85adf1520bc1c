"""The numbers: what maps pixels to an embedding. Nothing is imported here, so that the service can run without torch."""
