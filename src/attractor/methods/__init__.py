"""The published systems by name, one in each file; `contract` says what a method is."""

from typing import Any

from attractor.methods.contract import Method
from attractor.methods.discriminative_loss import DiscriminativeLoss
from attractor.methods.recurrent_pixel_embedding import RecurrentPixelEmbedding
from attractor.methods.rsis import RSIS
from attractor.methods.spatial_embeddings import SpatialEmbeddings

__all__ = ["METHODS", "Method"]

METHODS: dict[str, type[Method[Any]]] = {
    "spatial-embeddings": SpatialEmbeddings,
    "discriminative-loss": DiscriminativeLoss,
    "recurrent-pixel-embedding": RecurrentPixelEmbedding,
    "rsis": RSIS,
}
