"""Speed and scale, measured against the plain forms that define what each method does."""
