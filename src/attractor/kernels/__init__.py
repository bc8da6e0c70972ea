"""Fast twins of the plain forms, named by operation; tests hold each equal to its definition."""
