"""Fast twins of the plain forms, named by operation; each is tested equal to its definition."""
