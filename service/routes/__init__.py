"""One file a resource, with its requests and answers; `requests`, `responses`, `checks` and `openapi` are what they share."""
