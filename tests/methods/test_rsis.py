"""The published vectors of RSIS, and the laws of its loss and its sequence."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attractor.errors import InputError
from attractor.losses import soft_iou_cost
from attractor.methods.rsis import RSIS, ConvLSTM, Maps, RecurrentDecoder, convolved_twice_as_large, match
from attractor.networks import NETWORKS
from attractor.truth import Truth

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["vectors"]}


class Encoder(nn.Module):
    """Two levels of features, hardly any work."""

    channels, strides = (2, 4), (2, 4)

    def __init__(self, channels_out):
        super().__init__()
        assert list(channels_out) == []
        self.fine, self.coarse = nn.Conv2d(1, 2, 2, 2), nn.Conv2d(2, 4, 2, 2)

    def pyramid(self, images):
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


def method(**options):
    torch.manual_seed(0)
    return RSIS(Encoder, **({"hidden": 4, "steps": 5} | options))


def loss_vector():
    """The maps and the truth of the loss vector: a 4x4 image."""
    inputs = VECTORS["RSIS-LOSS"]["inputs"]
    labels = np.zeros(16, np.int32)
    for number, mask in enumerate(inputs["gt_masks"], 1):
        labels[np.array(mask) == 1] = number
    classes = torch.tensor([inputs["gt_classes"]])
    truth = Truth(torch.from_numpy(labels).view(1, 4, 4), classes, torch.ones(1, 4, 4, dtype=torch.bool))
    logits = (torch.tensor(inputs[key]).double()[None] for key in ("mask_logits", "class_logits", "stop_logits"))
    mask, class_logits, stop = logits
    return Maps(mask.view(1, -1, 4, 4), class_logits, stop), truth


def test_costs_are_those_of_the_vector():
    inputs, expected = VECTORS["RSIS-LOSS"]["inputs"], VECTORS["RSIS-LOSS"]["expected"]
    masks = torch.tensor(inputs["mask_logits"]).double().sigmoid()
    cost = soft_iou_cost(masks, torch.tensor(inputs["gt_masks"]).double())
    torch.testing.assert_close(cost.T, torch.tensor(expected["cost_matrix_gt_by_pred"]).double(), atol=1e-6, rtol=0)
    step, target = match(cost[:3, :3])
    assert step.tolist() == [0, 1, 2]
    assert target.tolist() == expected["gt_index_for_prediction"][:3]
    _, target = match(cost[:2, :3])  # a curriculum of two steps
    assert target.tolist() == expected["curriculum_limit2_gt_index_for_first_two"]
    assert cost[0, 3].item() == expected["soft_iou_cost_empty_gt"]


def test_losses_are_those_of_the_vector():
    expected = VECTORS["RSIS-LOSS"]["expected"]
    maps, truth = loss_vector()
    own = method(n_classes=2, stop_loss="published")
    terms = own.loss(maps, truth)
    for name, key in (("mask", "mask"), ("class", "cls"), ("stop", "stop")):
        assert terms[name].item() == pytest.approx(expected[key], abs=1e-6)
    total = sum(own.weights[name] * value for name, value in terms.items())
    assert total.item() == pytest.approx(expected["total_w_1_0p1_0p5"], abs=1e-6)
    plain = method(n_classes=2).loss(maps, truth)["stop"]
    assert plain.item() == pytest.approx(expected["stop_paper_style_all_T_unweighted"], abs=1e-6)


def test_the_cell_is_that_of_the_vector():
    cell = ConvLSTM(2, 2).double()
    weight, bias = cell.gates.weight, cell.gates.bias
    with torch.no_grad():
        weight.copy_(0.2 * torch.sin(0.7 * torch.arange(weight.numel()).double() + 0.1).view(weight.shape))
        bias.copy_(0.1 * torch.cos(torch.arange(8).double()))
    x = torch.sin(0.5 * torch.arange(32).double()).view(1, 2, 4, 4)
    state = None
    for factor, step in zip((1, -0.5, 1), VECTORS["RSIS-CLSTM"]["expected"]["steps"], strict=True):
        state = cell(factor * x, state)
        h, c = state
        assert h.sum().item() == pytest.approx(step["h_sum"], abs=1e-6)
        assert c.sum().item() == pytest.approx(step["c_sum"], abs=1e-6)
        assert h[0, 0, 0, 0].item() == pytest.approx(step["h_0000"], abs=1e-6)
        assert h[0, 1, 3, 3].item() == pytest.approx(step["h_0133"], abs=1e-6)
        assert h.amax((2, 3))[0].tolist() == pytest.approx(step["h_max_per_channel"], abs=1e-6)


def test_the_decoder_has_the_sizes_of_the_vector():
    expected = VECTORS["RSIS-NET"]["expected"]
    decoder = RecurrentDecoder((64, 256, 512, 1024, 2048), 20, 128, "concat", coordinates=False)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in decoder.named_children()}
    assert count["taps"] == expected["params"]["skip"]
    assert sum(count.values()) - count["taps"] == expected["params"]["decoder"]
    assert [sum(p.numel() for p in cell.parameters()) for cell in decoder.lstms] == expected["params"]["clstm"]
    assert [count["mask"], count["classes"], count["stop"]] == [
        expected["params"][key] for key in ("conv_out", "fc_class", "fc_stop")
    ]
    sizes = [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    pyramid = [torch.zeros(2, c, *size) for c, size in zip((64, 256, 512, 1024, 2048), sizes, strict=True)]
    skips = [list(tap(x).shape) for tap, x in zip(decoder.taps, reversed(pyramid), strict=True)]
    assert skips == expected["skip_shapes_64x96"]
    features = [tap(x) for tap, x in zip(decoder.taps, reversed(pyramid), strict=True)]
    states = decoder._step(features, [None] * 5, [None] * 5)[2]
    assert [list(h.shape) for h, _ in states] == expected["hidden"]
    maps = decoder(pyramid, (64, 96), 1)
    assert maps.mask.shape == (2, 1, 64, 96)
    assert maps.classes.shape == (2, 1, 21)
    assert maps.stop.shape == (2, 1)


@pytest.mark.parametrize("skip", ["concat", "sum", "mul", "none"])
@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_it_stands_on_every_network(skip, coordinates, network):
    own = RSIS(partial(NETWORKS[network], 1), hidden=16, steps=2, skip=skip, coordinates=coordinates).eval()
    maps = own(torch.rand(1, 1, 37, 50))
    assert maps.mask.shape == (1, 2, 37, 50)


def test_what_is_computed_ahead_changes_nothing():
    torch.manual_seed(0)
    decoder = RecurrentDecoder((4, 6, 8), 1, 8, "concat", coordinates=False).double()
    skips = [torch.rand(2, c, *size).double() for c, size in ((8, (3, 4)), (8, (6, 8)), (4, (12, 16)))]
    gradients = []
    for ahead in (False, True):
        decoder.zero_grad()
        answers = decoder.run(skips, 4, ahead=ahead)
        sum(answer.square().sum() for answer in answers).backward()
        gradients.append([p.grad.clone() for p in decoder.lstms.parameters()])
        plain = answers if not ahead else plain
    for a, b in zip([*answers, *gradients[1]], [*plain, *gradients[0]], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("skip", ["concat", "sum"])
def test_in_bfloat16_only_convolutions_round(skip):
    torch.manual_seed(0)
    decoder = RecurrentDecoder((4, 6, 8), 1, 8, skip, coordinates=False)
    pyramid = [torch.rand(1, c, 2**n, 2**n) for c, n in ((4, 4), (6, 3), (8, 2))]
    plain = decoder(pyramid, (32, 32), 4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder(pyramid, (32, 32), 4)
    assert {x.dtype for x in vars(rounded).values()} == {torch.float32}
    torch.testing.assert_close(rounded.mask, plain.mask, atol=0.02, rtol=0)
    torch.testing.assert_close(rounded.stop, plain.stop, atol=0.02, rtol=0)
    assert torch.equal(rounded.mask, plain.mask) == (skip != "concat")  # the rest is not computed ahead
    (rounded.mask.square().sum() + rounded.stop.sum()).backward()
    assert all(bool(p.grad.abs().sum()) for p in decoder.lstms.parameters())


@pytest.mark.parametrize(("channels", "bias"), [(1, True), (3, False)])
def test_a_convolution_may_come_before_the_doubling(channels, bias):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, channels, 3, padding=1, bias=bias).double()
    x = torch.rand(2, 4, 5, 7, dtype=torch.float64)
    large = torch.nn.functional.interpolate(x, (10, 14), mode="bilinear", align_corners=True)
    torch.testing.assert_close(convolved_twice_as_large(x, layer), layer(large))


class Falling(torch.nn.Module):
    """Instead of the head that says whether there is an object: less sure of it with every step."""

    step = 0

    def forward(self, sides):
        self.step += 1
        return sides.new_full((len(sides), 1), 3.0 - 2 * self.step)


@pytest.mark.parametrize(("mode", "threshold", "steps"), [("break", 0.5, 3), ("break", 0.01, 4), ("skip", 0.5, 6)])
def test_steps_that_cannot_count_are_left_out_where_nothing_is_learned(mode, threshold, steps):
    torch.manual_seed(0)
    own = RSIS(partial(NETWORKS["erfnet"], 1), hidden=16, steps=6, stop_mode=mode, stop_threshold=threshold).eval()
    images, answers = torch.rand(2, 1, 24, 32), []
    for learns in (True, False):
        own.decoder.stop = Falling()
        with torch.set_grad_enabled(learns):
            answers.append(own(images))
    whole, short = answers
    assert (whole.stop.shape[1], short.stop.shape[1]) == (6, steps)
    torch.testing.assert_close(short.mask, whole.mask[:, :steps])
    assert own.is_full(short) == own.is_full(whole) == [False, False]
    for one, other in zip(own.group(short), own.group(whole), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.scores, other.scores)


def truth_of(*labels):
    labels = torch.tensor(labels, dtype=torch.int32)
    classes = torch.ones(len(labels), max(1, int(labels.max())), dtype=torch.int64)
    return Truth(labels, classes, torch.ones_like(labels, dtype=torch.bool))


def sure(*masks, stop):
    """Maps whose steps are sure of these masks."""
    mask = torch.tensor(masks).float()[None] * 20 - 10
    return Maps(mask, torch.tensor([[[-5.0, 5.0]]]).expand(1, len(masks), 2), torch.tensor([stop]).float())


def test_more_objects_than_steps_teach_the_largest():
    truth = truth_of([[1, 2, 2, 3, 3, 3, 0]])
    largest = sure([[0, 0, 0, 1, 1, 1, 0]], [[0, 1, 1, 0, 0, 0, 0]], stop=[5, 5])
    smallest = sure([[1, 0, 0, 0, 0, 0, 0]], [[0, 1, 1, 0, 0, 0, 0]], stop=[5, 5])
    own = method(steps=2)
    assert own.loss(largest, truth)["mask"] < 0.01
    assert own.loss(smallest, truth)["mask"] > 0.4


def test_any_order_is_right_but_the_first_steps_must_find():
    truth = truth_of([[1, 1, 2, 0]])
    one, two, nothing = [[1, 1, 0, 0]], [[0, 0, 1, 0]], [[0, 0, 0, 0]]
    own = method()
    for masks in ((one, two, nothing), (two, one, nothing)):
        assert own.loss(sure(*masks, stop=[9, 9, -9]), truth)["mask"] < 0.01
    assert own.loss(sure(one, nothing, two, stop=[9, 9, -9]), truth)["mask"] > 0.4


def test_the_curriculum_lengthens_sequences_in_training_only():
    own = method(first_steps=2, epochs_per_step=2.0)
    lengths = []
    for epoch in (0, 1, 2, 4, 100):
        own.at_epoch(epoch)
        lengths.append(own.train()(torch.rand(1, 1, 8, 8)).mask.shape[1])
        assert own.eval()(torch.rand(1, 1, 8, 8)).mask.shape[1] == 5
    assert lengths == [2, 2, 3, 4, 5]
    three = truth_of(np.diag([1, 2, 3, 0]).tolist())
    masks = [(np.diag([1, 2, 3, 0]) == k).tolist() for k in (3, 1)]
    terms = own.loss(sure(*masks, stop=[9, 9]), three)
    assert terms["mask"] < 0.01  # the two steps may have any two of the three objects
    assert terms["stop"] < 0.01  # and there was more to come after both


def test_stopping_breaks_off_or_skips():
    maps = sure([[1, 1, 0, 0, 0]], [[0, 0, 1, 0, 0]], [[0, 0, 0, 1, 1]], stop=[3, -1, 2])
    (broken,), (skipped,) = (method(stop_mode=mode).group(maps) for mode in ("break", "skip"))
    assert broken.labels.tolist() == [[1, 1, 0, 0, 0]]
    assert skipped.labels.tolist() == [[1, 1, 0, 2, 2]]
    assert skipped.scores == pytest.approx([1 / (1 + np.exp(-3.0)), 1 / (1 + np.exp(-2.0))], abs=1e-3)


def test_a_sequence_that_was_used_up_is_told_from_one_that_stopped():
    masks = [[1, 1, 0]], [[0, 0, 0]]
    assert method(steps=2).is_full(sure(*masks, stop=[3, 3])) == [True]  # though the second mask is empty
    assert method(steps=2).is_full(sure(*masks, stop=[3, -3])) == [False]


def test_a_loss_that_is_not_a_number_can_be_told():
    maps = sure([[1, 1, 0]], stop=[3])
    maps.mask[0, 0, 0, 0] = torch.nan
    assert torch.isnan(method(steps=1).loss(maps, truth_of([[1, 1, 0]]))["mask"])


def test_labels_are_in_the_order_of_being_found_and_the_surer_mask_has_the_pixel():
    maps = sure([[0, 0, 1, 1, 0]], [[1, 1, 1, 0, 0]], [[0, 0, 0, 0, 1]], stop=[3, 2, 1])
    maps.mask[0, 1, 0, 2] = 12
    (found,) = method().group(maps)
    assert found.labels.tolist() == [[2, 2, 2, 1, 3]]
    assert (np.diff(found.scores) < 0).all()


def test_the_largest_part_of_a_connected_object_is_kept():
    maps = sure([[1, 1, 0, 0, 1]], stop=[3])
    (free,), (connected,) = (method(connected=c).group(maps) for c in (False, True))
    assert free.labels.tolist() == [[1, 1, 0, 0, 1]]
    assert connected.labels.tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "first_steps <= steps"),
        ({"first_steps": 9}, "first_steps <= steps"),
        ({"hidden": 3}, "multiple of 2"),
        ({"skip": "add"}, "concat, sum, mul, none"),
        ({"stop_mode": "never"}, "break, skip"),
        ({"epochs_per_step": 0.0}, "at least 0.001"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        method(**options)
