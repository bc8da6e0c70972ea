"""The published systems, one a file."""

from attractor.methods.spatial_embeddings import SpatialEmbeddings

METHODS = {"spatial-embeddings": SpatialEmbeddings}
