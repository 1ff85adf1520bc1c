"""The commands of `rankone`: one file a group of commands. They read flags, call the packages below, and print."""
