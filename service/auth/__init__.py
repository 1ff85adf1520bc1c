"""Who may do what: the file of keys, and the check of every request's key."""
