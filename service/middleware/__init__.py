"""What stands before the routes, outermost first: observation, keys, and the body's limits."""
