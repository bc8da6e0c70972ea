"""The same answer on a GPU as on a processor."""

import numpy as np
import pytest
import torch

from attractor.model import Description, Model
from attractor.prediction.image import Segmenter
from attractor.truth import Truth

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def model():
    torch.manual_seed(0)
    made = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",)))
    torch.nn.init.normal_(made.method.network.decoders[0][-1].weight, std=0.02)
    return made.eval()


def test_maps_and_labels_agree():
    image = np.random.default_rng(0).integers(0, 255, (96, 128)).astype(np.uint8)
    here, there = Segmenter(model(), device="cpu"), Segmenter(model(), device="cuda")
    for a, b in zip(
        vars(here.maps(here.prepared(image))).values(), vars(there.maps(there.prepared(image))).values(), strict=True
    ):
        torch.testing.assert_close(b.cpu(), a, atol=1e-3, rtol=1e-3)
    same = here.segment(image).labels > 0, there.segment(image).labels > 0
    assert (same[0] == same[1]).mean() > 0.99


def test_loss_and_gradients_agree():
    labels = torch.zeros(2, 64, 64, dtype=torch.int32)
    labels[0, 4:20, 4:24], labels[0, 30:50, 8:30] = 1, 2
    image = torch.rand(2, 1, 64, 64)
    results = {}
    for device in ("cpu", "cuda"):
        method = model().method.to(device)
        truth = Truth(labels.to(device), torch.ones(2, 2, dtype=torch.int64, device=device), (labels >= 0).to(device))
        terms = method.loss(method(image.to(device)), truth)
        sum(terms.values()).backward()
        gradient = method.network.decoders[0][-1].weight.grad
        results[device] = torch.stack([*terms.values()]).detach().cpu(), gradient.cpu()
    for here, there in zip(*results.values(), strict=True):
        torch.testing.assert_close(there, here, atol=1e-3 * here.abs().max().item(), rtol=1e-3)
