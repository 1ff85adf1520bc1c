"""The HTTP routes, one file a resource; what they share lies in `problems`, `requests` and `responses`."""
