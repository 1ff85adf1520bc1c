"""What stands before the routes, outermost first: observation, keys, the body's limits, room, and paths."""
