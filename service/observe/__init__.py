"""What an operator sees of requests: ids, timings, metrics, log lines and traces."""
