"""The `rankone` command: the work of the packages below, in the order in which it is done."""
