"""The same answer on a GPU as on a processor."""

import numpy as np
import pytest
import torch

from attractor.description import Description
from attractor.model import Model
from attractor.prediction.engines import dtype_of, engine_of
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
    here, there = (Segmenter(model(), device=device, dtype="float32") for device in ("cpu", "cuda"))
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


def test_a_recorded_graph_gives_the_maps_of_each_image():
    network = model().method.network.cuda()
    plain, graphed = (engine_of(network, name="torch", dtype="float32", device=torch.device("cuda")) for _ in "ab")
    with torch.inference_mode():
        for side in (64, 96, 64, 64, 96, 96):  # each size comes again, and is recorded then
            image = torch.rand(1, 1, side, 72, device="cuda")
            torch.testing.assert_close(graphed(image), plain.engine(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_images_are_normalised_alike(kind):
    image = np.random.default_rng(0).integers(0, 250, (96, 128)).astype(kind)
    here, there = (Segmenter(model(), device=device).prepared(image) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.cpu(), here)


def test_memory_that_runs_out_leads_to_tiles(monkeypatch, caplog):
    there = Segmenter(model(), device="cuda", dtype="float32")
    image = np.random.default_rng(0).integers(0, 255, (600, 520)).astype(np.uint8)
    tiled = there.segment(image, tile=256).labels
    compute = Segmenter._mapped

    def with_little_memory(self, source, tta, name, tile):
        if tile is None or tile > 256:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        return compute(self, source, tta, name, tile)

    monkeypatch.setattr(Segmenter, "_mapped", with_little_memory)
    assert np.array_equal(there.segment(image).labels, tiled)
    assert "memory ran out on cuda" in caplog.text


def test_the_precision_follows_from_the_compute_capability():
    has_instructions = torch.cuda.get_device_capability() >= (8, 0)
    assert dtype_of("auto", torch.device("cuda")) == (torch.bfloat16 if has_instructions else torch.float32)
