"""The published systems, one a file."""

from typing import Any

from attractor.methods.discriminative_loss import DiscriminativeLoss
from attractor.methods.recurrent_pixel_embedding import RecurrentPixelEmbedding
from attractor.methods.rsis import RSIS
from attractor.methods.spatial_embeddings import SpatialEmbeddings

METHODS: dict[str, Any] = {
    "spatial-embeddings": SpatialEmbeddings,
    "discriminative-loss": DiscriminativeLoss,
    "recurrent-pixel-embedding": RecurrentPixelEmbedding,
    "rsis": RSIS,
}
