"""What stands before the routes, outermost first: observation, keys, room, and the body's limits."""
