"""Fast twins of the plain forms, named after what they do; tests hold each equal to its definition."""
