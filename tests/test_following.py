"""Where objects were one frame ago: learned from films, and told of new ones."""

import math

import numpy as np
import pytest
import torch
from tests.test_augmentation import STILL

from attractor import InputError
from attractor.augmentation import VIEWS
from attractor.datasets import open_dataset
from attractor.datasets.ctc import Ctc
from attractor.datasets.held import hold
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Earlier, Sample
from attractor.description import Description
from attractor.methods.spatial_embeddings import Maps, MovingMaps
from attractor.model import Model
from attractor.networks import ERFNet
from attractor.prediction import following
from attractor.prediction.batches import Given
from attractor.prediction.following import followed
from attractor.prediction.image import Segmenter
from attractor.recipe import recipe_for
from attractor.runs import train
from attractor.settings import Settings
from attractor.training.batches import RandomCrops, collate
from attractor.truth import Truth

AWAY = 500.0  # pixels, out of every object's reach
MARGIN = 1.5  # pixels


def new_model(network="erfnet", **changes):
    torch.manual_seed(0)
    options = {"follows": True} | changes.pop("options", {})
    given = {"method": "spatial-embeddings", "channels": 1, "class_names": ("object",)}
    return Model(Description(network=network, options=options, **given, **changes))


def blocks(*corners, side=5, shape=(24, 32)):
    """Labels of squares, numbered from 1; None leaves a number out."""
    labels = torch.zeros(shape, dtype=torch.int32)
    for number, corner in enumerate(corners, 1):
        if corner is not None:
            labels[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = number
    return labels


def truth_of(labels, earlier):
    labels = torch.stack(labels)
    classes = torch.ones(len(labels), int(labels.max()), dtype=torch.int64)
    rows = None if earlier is None else torch.tensor(earlier)
    return Truth(labels, classes, torch.ones_like(labels, dtype=torch.bool), rows)


def pointing(truth, targets):
    """Maps whose objects in the second image point at these places, and whose other pixels point away."""
    method = new_model().method
    _, h, w = truth.labels.shape
    place = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).float()
    steps = torch.full((2, 2, h, w), AWAY)
    for number, target in enumerate(targets, 1):
        inside = truth.labels[1] == number
        steps[1][:, inside] = torch.tensor(target)[:, None] - place[:, inside]
    motion = torch.atanh(steps * torch.tensor(method.grid_step)[:, None, None])
    sigma = math.log(math.log(2) / (MARGIN / 1024) ** 2) / 10
    zeros = torch.zeros(2, 2, h, w)
    return method, MovingMaps(zeros, zeros + sigma, zeros[:, :1], motion.requires_grad_())


def test_what_comes_from_one_object_bears_its_label():
    truth = truth_of([blocks((2, 2), (12, 2)), blocks((2, 20), (12, 8), (12, 20))], [[0, 0, 0], [0, 1, 1]])
    labels = truth.origins().labels
    assert not labels[0].any()
    assert labels[1].unique().tolist() == [0, 1]
    assert (labels[1] > 0).equal(truth.labels[1] >= 2)


def test_an_object_whose_origin_is_not_in_the_crop_comes_from_nowhere():
    truth = truth_of([blocks((2, 2)), blocks((2, 2), (12, 8))], [[0, 0], [1, 2]])
    assert truth.origins().labels[1].unique().tolist() == [0, 1]


def test_the_term_is_zero_where_all_point_at_the_middle_of_where_they_were():
    truth = truth_of([blocks((2, 2), (12, 2)), blocks((4, 20), (12, 12))], [[0, 0], [2, 1]])
    right = [(14.0, 4.0), (4.0, 4.0)]  # they have changed places
    for targets, holds in ((right, lambda loss: loss < 1e-3), (right[::-1], lambda loss: loss > 1)):
        method, maps = pointing(truth, targets)
        loss = method.loss(maps, truth)["motion"]
        assert holds(loss.item())
        loss.backward()
        assert maps.motion.grad.isfinite().all()


def test_children_are_drawn_to_the_parent_side_by_side():
    truth = truth_of([blocks((8, 8)), blocks((4, 8), (14, 8))], [[0, 0], [1, 1]])
    method, maps = pointing(truth, [(10.0, 10.0)] * 2)
    assert method.loss(maps, truth)["motion"].item() < 1e-3


def test_images_of_no_film_say_nothing_of_motion():
    truth = truth_of([blocks((2, 2)), blocks((4, 20))], None)
    method, maps = pointing(truth, [(4.0, 4.0)])
    loss = method.loss(maps, truth)["motion"]
    loss.backward()
    assert loss.item() == 0
    assert not maps.motion.grad.any()


def test_pixels_that_point_at_the_middle_say_so_in_pixels():
    truth = truth_of([blocks((2, 2)), blocks((4, 20))], [[0], [1]])
    method, maps = pointing(truth, [(4.0, 4.0)])
    torch.testing.assert_close(method.steps(maps)[1, :, 6, 22], torch.tensor([-2.0, -18.0]))


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_steps_are_turned_as_offsets_are(view):
    generator = torch.Generator().manual_seed(0)
    offset, sigma, seed, motion = (torch.rand(1, n, 8, 8, generator=generator) for n in (2, 2, 1, 2))
    method = new_model().method
    turned = method.turned(MovingMaps(offset, sigma, seed, motion), view)
    torch.testing.assert_close(turned.motion, method.turned(Maps(motion, sigma, seed), view).offset)
    torch.testing.assert_close(turned.offset, method.turned(Maps(offset, sigma, seed), view).offset)
    mean = method.averaged([turned, turned])
    torch.testing.assert_close(mean.motion, turned.motion)
    finer = method.resampled(MovingMaps(offset, sigma, seed, motion), (4, 4))
    torch.testing.assert_close(finer.motion, method.resampled(Maps(motion, sigma, seed), (4, 4)).offset)


def test_a_frame_is_compared_with_the_one_before_it_alone():
    torch.manual_seed(0)
    network = ERFNet(1, [3], joint_channels=2).eval()
    frames = torch.rand(4, 1, 16, 24)
    with torch.no_grad():
        maps = network(frames)
        assert maps.shape == (4, 5, 16, 24)
        for n in range(4):
            torch.testing.assert_close(network(frames[[n - 1, n]])[1], maps[n])
        changed = network(torch.cat([frames[:1] + 1, frames[1:]]))
    assert not torch.equal(changed[1, 3:], maps[1, 3:])
    torch.testing.assert_close(changed[2], maps[2])


def test_in_training_the_second_of_each_pair_is_compared_with_the_first():
    torch.manual_seed(0)
    network = ERFNet(1, [3], joint_channels=2, dropout=0.0)
    frames = torch.rand(4, 1, 16, 24)
    maps = network(frames)[:, 3:]
    assert not maps[::2].any()
    assert maps[1::2].abs().sum((1, 2, 3)).min() > 0
    network.eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()  # as in training, so that both see alike
    alone = network.joint(
        torch.cat([network.pyramid(frames)[-1][part] for part in (slice(1, 4, 2), slice(0, 4, 2))], 1)
    )
    torch.testing.assert_close(alone, maps[1::2])


def test_a_network_that_cannot_compare_is_refused():
    with pytest.raises(InputError, match="unet cannot compare a frame with the one before; what can is erfnet"):
        new_model("unet")


# --- from frames to where objects were


def frames_of(n, shape=(24, 32)):
    random = np.random.default_rng(0)
    return [Given(f"frame {k}", random.integers(0, 255, shape, np.uint8)) for k in range(n)]


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"tile": 16}], ids=str)
def test_frames_are_followed_alike_in_runs_of_any_length(options, monkeypatch):
    segmenter, frames = Segmenter(new_model(), device="cpu", dtype="float32"), frames_of(5)
    assert segmenter.follows
    together = list(followed(segmenter, iter(frames), **options))
    monkeypatch.setattr(following, "MOST_FRAMES", 2)
    in_pairs = list(followed(segmenter, iter(frames), **options))
    assert together[0].steps is None
    for one, other in zip(together, in_pairs, strict=True):
        np.testing.assert_array_equal(one.found.labels, other.found.labels)
    for one, other in zip(together[1:], in_pairs[1:], strict=True):
        assert one.steps.shape == (2, 24, 32)
        np.testing.assert_allclose(one.steps, other.steps, atol=1e-3)


def test_where_memory_runs_out_runs_are_shorter_and_tiles_smaller(monkeypatch, caplog):
    segmenter, frames = Segmenter(new_model(), device="cpu", dtype="float32"), frames_of(6)
    whole = list(followed(segmenter, frames))
    computed, sizes = segmenter.maps, []

    def maps(image, **options):
        sizes.append((len(image), options["tile"]))
        if len(image) > 3 or options["tile"] is None:
            raise MemoryError
        return computed(image, tta=False)

    monkeypatch.setattr(segmenter, "maps", maps)
    monkeypatch.setattr(following, "smaller_tile", lambda tile, shape: 16 if tile is None else None)
    found = list(followed(segmenter, frames))
    assert sizes[:4] == [(6, None), (3, None), (1, None), (1, 16)]
    assert "computed in tiles of 16 now" in caplog.text
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one.found.labels, other.found.labels)
        assert (one.steps is None) == (other.steps is None)
        if one.steps is not None:
            np.testing.assert_allclose(one.steps, other.steps, atol=1e-3)


def test_the_more_a_frame_is_magnified_the_fewer_are_seen_at_once(monkeypatch):
    segmenter = Segmenter(new_model(), device="cpu", dtype="float32", tta_scales=[2.0])
    (frame,) = frames_of(1)
    monkeypatch.setattr(segmenter, "most_pixels", lambda: 16 * 24 * 32)
    some = [
        following._Runs.of(segmenter, frame, tta=tta, object_size=None, tile=None).n_frames for tta in (False, True)
    ]
    assert some == [8, 3]


def test_steps_are_in_the_pixels_of_the_frame_whatever_the_network_sees():
    model = new_model()
    with torch.no_grad():
        model.method.network.heads[-1].bias[:] = torch.tensor([4.0, -6.0]) / 1024  # pixels that the network sees
    model.description = model.described(scale=0.5)
    (_, second) = followed(Segmenter(model, device="cpu", dtype="float32"), frames_of(2, (25, 32)))
    np.testing.assert_allclose(second.steps[0], 4 * 25 / 12, atol=0.01)
    np.testing.assert_allclose(second.steps[1], -12, atol=0.01)


def test_a_frame_of_one_value_has_no_objects():
    model = new_model(options={"foreground_threshold": 0.0, "seed_threshold": 0.0})
    frames = [*frames_of(1), Given("dark", np.zeros((24, 32), np.uint8))]
    first, second = followed(Segmenter(model, device="cpu", dtype="float32"), frames)
    assert len(first.found) > 0
    assert len(second.found) == 0


def test_no_frame_gives_nothing_and_another_model_is_refused():
    segmenter = Segmenter(new_model(), device="cpu")
    assert list(followed(segmenter, [])) == []
    plain = Segmenter(new_model(options={"follows": False}), device="cpu")
    assert not plain.follows
    with pytest.raises(InputError, match="does not follow objects from frame to frame; take one that was trained on"):
        list(followed(plain, frames_of(2)))


# --- learning from a film


def squares(t):
    """Two squares that move apart, the numbers changing places in every frame."""
    corners = [(2 + t, 4), (12, 20 - 2 * t)]
    return blocks(*(corners if t % 2 == 0 else corners[::-1])).numpy()


@pytest.fixture
def film(tmp_path):
    samples = []
    for t in range(4):
        labels = squares(t)
        image = (60 * labels + 20).astype(np.uint8)[..., None]
        earlier = Earlier(f"t{t - 1}", np.array([2, 1])) if t else None
        ignore = np.zeros(labels.shape, bool)
        samples.append(Sample(f"t{t}", image, labels, np.ones(2, np.int32), ignore, earlier=earlier))

    class Frames:
        class_names, names, columns = ("object",), tuple(sample.name for sample in samples), {}

        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            return samples[index]

    Ctc.write(tmp_path / "film", samples, Frames())
    return tmp_path / "film"


def crops_of(images, model=None):
    settings = Settings(crops_per_epoch=8, crop_size=16, batch_size=2, workers=0)
    return RandomCrops(model or new_model(), images, settings, STILL)


def test_a_crop_comes_with_that_of_the_frame_before(film):
    crops = crops_of(hold(open_dataset(film)))
    for index in range(8):
        before, now = crops[0, index]
        assert before.labels.shape == now.labels.shape == (16, 16)
        assert before.earlier is None
        if now.sample.earlier is None:
            assert before.sample is now.sample
            torch.testing.assert_close(before.labels, now.labels)
            assert now.earlier.tolist() == [1, 2]
        else:
            assert before.sample.name == now.sample.earlier.name
            assert now.earlier.tolist() == now.sample.earlier.labels.tolist()
    batch = collate([crops[0, 0], crops[0, 1]])
    assert batch.images.shape == (4, 1, 16, 16)
    assert batch.truth.earlier[::2].tolist() == [[0, 0], [0, 0]]
    moved = batch.to(torch.device("cpu")).truth
    torch.testing.assert_close(moved.earlier, batch.truth.earlier)
    terms = new_model().method.loss(new_model()(batch.images), batch.truth)
    assert terms["motion"].isfinite()


def test_where_the_frame_before_is_in_the_other_part_nothing_has_moved(film):
    crops = crops_of(hold(open_dataset(film)).part([1, 3]))
    for index in range(4):
        before, now = crops[0, index]
        assert before.sample is now.sample
        assert now.earlier.tolist() == [1, 2]


def test_a_method_that_does_not_follow_takes_frames_one_by_one(film):
    crops = crops_of(hold(open_dataset(film)), new_model(options={"follows": False}))
    assert [len(crops[0, index]) for index in range(4)] == [1] * 4
    assert collate([crops[0, 0]]).truth.earlier is None


def test_a_film_is_learned_with_its_motion_where_method_and_network_can(film):
    assert recipe_for(film).model.options["follows"] is True
    assert "follows" not in recipe_for(film, ["model.network=unet"]).model.options
    assert "follows" not in recipe_for(film, ["model.method=discriminative-loss"]).model.options
    assert recipe_for(film, ["model.options.follows=false"]).model.options["follows"] is False
    begun = recipe_for(film, start="nuclei").model
    assert begun.options["follows"] is True


def test_a_film_begins_with_a_threshold_that_finds_more(film, tmp_path):
    """A missed object costs ten times as much as a wrong one."""
    changes = ["model.network=unet"], ["model.options.follows=false"], []
    for change in changes:
        assert recipe_for(film, change).model.options["seed_threshold"] == 0.5
        assert recipe_for(film, change, start="nuclei").model.options["seed_threshold"] == 0.5
    assert recipe_for(film, ["model.options.seed_threshold=0.8"]).model.options["seed_threshold"] == 0.8
    write_label_images(tmp_path / "pictures", list(open_dataset(film)))
    assert recipe_for(tmp_path / "pictures").model.options["seed_threshold"] == 0.9
    new_model(options={"follows": True, "seed_threshold": 0.7}).save(tmp_path / "follows.safetensors")
    begun = recipe_for(film, start=str(tmp_path / "follows.safetensors"))
    assert begun.model.options["seed_threshold"] == 0.7  # chosen for a film


def test_what_learned_from_a_film_goes_on_with_pictures_alone(film, tmp_path):
    new_model().save(tmp_path / "follows.safetensors")
    write_label_images(tmp_path / "pictures", list(open_dataset(film)))
    assert (
        recipe_for(tmp_path / "pictures", start=str(tmp_path / "follows.safetensors")).model.options["follows"] is False
    )
    assert "follows" not in recipe_for(tmp_path / "pictures").model.options


def test_a_network_learns_where_objects_were():
    """A bright and a dim square, whose labels change places in every frame, move by a pixel and by two."""
    model = new_model(options={"initial_margin": 3.0}, network_options={"dropout": 0.0}).train()
    frames = [torch.from_numpy(squares(t)) for t in range(4)]
    pictures = torch.stack([0.5 * (frame > 0) + 0.4 * (frame == 1 + t % 2) for t, frame in enumerate(frames)])[:, None]
    order = [0, 1, 1, 2, 2, 3]  # three pairs
    truth = truth_of([frames[t] for t in order], [[0, 0], [2, 1]] * 3)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(80):
        loss = sum(model.method.loss(model(pictures[order]), truth).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        steps = model.eval().method.steps(model(pictures))
    for t in range(1, 4):
        for number in (1, 2):
            now, was = torch.argwhere(frames[t] == number).float(), torch.argwhere(frames[t - 1] == 3 - number).float()
            landed = now + steps[t][:, frames[t] == number].T
            assert torch.linalg.norm(landed.mean(0) - was.mean(0)) < 2


def test_what_lies_far_away_is_drawn_in():
    truth = truth_of([blocks((2, 2)), blocks((4, 20))], [[0], [1]])
    method, maps = pointing(truth, [(4.0, 300.0)])  # where the Gaussian is 0
    method.loss(maps, truth)["motion"].backward()
    inside = truth.labels[1] == 1
    assert (maps.motion.grad[1, 1, inside] > 0).all()  # smaller columns are better


def test_a_film_is_trained_on_and_followed(film, tmp_path):
    changes = ["training.epochs=1", "training.crops_per_epoch=4", "training.batch_size=2", "training.crop_size=16"]
    train(film, out=tmp_path / "run", changes=[*changes, "training.workers=0"], device="cpu")
    segmenter = Segmenter(Model.load(tmp_path / "run" / "model.safetensors"), device="cpu")
    assert segmenter.follows
    frames = [Given(one.name, one.image) for one in open_dataset(film)]
    assert [one.steps is None for one in followed(segmenter, frames)] == [True, False, False, False]
