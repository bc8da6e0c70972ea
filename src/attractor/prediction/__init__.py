"""From an image to its objects: in memory, in tiles, or a folder of files."""
