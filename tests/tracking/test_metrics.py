"""Metrics of tracks: by hand, against py-ctcmetrics, and against loops that say what the papers say."""

import contextlib
import io
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.tracking.random_films import spoiled, true_film

from attractor import InputError
from attractor.datasets.tracked import read_truth
from attractor.metrics import FILM_METRICS
from attractor.metrics.ctc import ctc_scores
from attractor.metrics.films import Frame, film
from attractor.metrics.mots import mots_scores
from attractor.tracks import Track

SAME = {"DET": "det", "TRA": "tra", "SEG": "seg", "CT": "ct", "TF": "tf", "CCA": "cca"}
COUNTS = {
    "NS": "splits",
    "FN": "missed",
    "FP": "wrong",
    "ED": "wrong_edges",
    "EA": "missed_edges",
    "EC": "changed_edges",
}
THRESHOLDS = [k / 20 for k in range(1, 20)]


def write_ctc(folder: Path, true, true_tracks, found, found_tracks) -> tuple[str, str]:
    """Both films as files, as the challenge's tool reads them."""
    result, truth = folder / "01_RES", folder / "01_GT"
    for part in (result, truth / "TRA", truth / "SEG"):
        part.mkdir(parents=True)
    for t, (one, other) in enumerate(zip(true, found, strict=True)):
        tifffile.imwrite(truth / f"TRA/man_track{t:03}.tif", one.astype(np.uint16))
        tifffile.imwrite(truth / f"SEG/man_seg{t:03}.tif", one.astype(np.uint16))
        tifffile.imwrite(result / f"mask{t:03}.tif", other.astype(np.uint16))
    for path, tracks in ((result / "res_track.txt", found_tracks), (truth / "TRA/man_track.txt", true_tracks)):
        path.write_text("".join(f"{track.id} {track.begin} {track.end} {track.parent}\n" for track in tracks))
    return str(result), str(truth)


def by_the_tool(result: str, truth: str) -> dict[str, object]:
    """What py-ctcmetrics says."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # its own, and scikit-learn's
        from ctc_metrics import evaluate_sequence

        return evaluate_sequence(result, truth, threads=1)


def same(one: object, other: float) -> bool:
    return np.isnan(other) if one is None else bool(np.isclose(float(str(one)), other, rtol=0, atol=1e-12))


def assert_same_as_the_tool(tool: dict[str, object], scores) -> None:
    assert tool["Valid"] == 1
    for name, field in SAME.items():
        assert same(tool[name], getattr(scores, field)), name
    for name, field in COUNTS.items():
        assert tool[f"AOGM_{name}"] == getattr(scores.corrections, field), name
    for i in range(4):
        assert same(tool[f"BC({i})"], scores.bc[i])
        assert same(tool[f"BIO({i})"], scores.bio[i])
        assert tool[f"tp_div({i})"] == scores.divisions[i].true_positives
        assert tool[f"fp_div({i})"] == scores.divisions[i].false_positives
    if scores.corrections.n_edges:
        assert same(tool["LNK"], scores.lnk)


@pytest.mark.parametrize("seed", range(25))
def test_the_challenge_s_tool_says_the_same(seed, tmp_path):
    random = np.random.default_rng(seed)
    true, true_tracks, parents = true_film(random)
    found, found_tracks = spoiled(true, parents, random)
    tool = by_the_tool(*write_ctc(tmp_path, true, true_tracks, found, found_tracks))
    assert_same_as_the_tool(tool, ctc_scores(film(true, true_tracks, found, found_tracks)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bacteria", "sim"])
def test_the_challenge_s_tool_says_the_same_of_real_films(name, data_folder, tmp_path):
    truth = read_truth(data_folder / "films" / "test" / name / "01_GT")
    frames = list(truth.frames())
    parents = {track.id: track.parent for track in truth.tracks if track.parent}
    found, found_tracks = spoiled(frames, parents, np.random.default_rng(0))
    tool = by_the_tool(*write_ctc(tmp_path, frames, truth.tracks, found, found_tracks))
    scores = ctc_scores(film(frames, truth.tracks, found, found_tracks))
    assert scores.corrections.missed > 20
    assert_same_as_the_tool(tool, scores)


def test_random_films_have_errors_of_all_kinds():
    seen = np.zeros(len(COUNTS), int)
    for seed in range(25):
        random = np.random.default_rng(seed)
        true, true_tracks, parents = true_film(random)
        scores = ctc_scores(film(true, true_tracks, *spoiled(true, parents, random)))
        seen += [getattr(scores.corrections, field) > 0 for field in COUNTS.values()]
    assert (seen > 0).all()


def test_errors_of_one_film_by_hand():
    """Two objects; the first is lost in the last frame, and in the middle one the second has another number."""
    true = [np.array([[1, 1, 0, 2, 2]])] * 3
    found = [np.array([[1, 1, 0, 2, 2]]), np.array([[1, 1, 0, 3, 3]]), np.array([[0, 0, 0, 4, 4]])]
    tracks = [Track(1, 0, 2), Track(2, 0, 2)]
    of_found = [Track(1, 0, 1), Track(2, 0, 0), Track(3, 1, 1, parent=2), Track(4, 2, 2)]
    scores = ctc_scores(film(true, tracks, found, of_found))
    assert scores.corrections.missed == 1
    assert scores.corrections.missed_edges == 2
    assert scores.corrections.changed_edges == 1
    assert scores.det == 1 - 10 / 60
    assert scores.lnk == 1 - (2 * 1.5 + 1) / 6
    assert scores.tra == 1 - (10 + 4) / 66
    assert scores.seg == 5 / 6
    assert scores.ct == 0
    assert scores.tf == (2 / 3 + 1 / 3) / 2


def test_a_division_that_is_a_frame_late_counts_within_one_frame():
    true = [np.array([[1, 1, 1, 1]])] + [np.array([[2, 2, 3, 3]])] * 3
    found = [np.array([[1, 1, 1, 1]]), np.array([[1, 1, 1, 0]])] + [np.array([[2, 2, 3, 3]])] * 2
    tracks = [Track(1, 0, 0), Track(2, 1, 3, 1), Track(3, 1, 3, 1)]
    of_found = [Track(1, 0, 1), Track(2, 2, 3, 1), Track(3, 2, 3, 1)]
    scores = ctc_scores(film(true, tracks, found, of_found))
    assert scores.bc == (0, 1, 1, 1)
    assert (scores.divisions[0].precision, scores.divisions[0].recall) == (0, 0)
    assert (scores.divisions[1].precision, scores.divisions[1].recall) == (1, 1)


def test_without_divisions_there_is_nothing_to_say_of_them():
    frames, tracks = [np.array([[1, 1]])] * 2, [Track(1, 0, 1)]
    scores = ctc_scores(film(frames, tracks, frames, tracks))
    assert all(np.isnan(value) for value in (*scores.bc, scores.cca, scores.divisions[0].precision))
    assert scores.bio == (1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(10))
def test_multi_object_scores_are_what_the_loops_say(seed):
    random = np.random.default_rng(seed)
    true, _, parents = true_film(random)
    found, _ = spoiled(true, parents, random)
    scores = mots_scores(film(true, [], found, []))
    motsa, smotsa, switches = _clear_by_loops(true, found)
    assert np.allclose([scores.motsa, scores.smotsa], [motsa, smotsa])
    assert scores.id_switches == switches
    assert np.isclose(scores.idf1, _idf1_by_loops(true, found))
    assert np.allclose([scores.hota, scores.deta, scores.assa], _hota_by_loops(true, found))


def _ids(frame):
    return np.unique(frame[frame > 0]).tolist()


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def _clear_by_loops(true, found):
    hits, overlap, wrong, switches, n_truth, last = 0, 0.0, 0, 0, 0, {}
    for one, other in zip(true, found, strict=True):
        matched = set()
        for k in _ids(one):
            n_truth += 1
            for j in _ids(other):
                if (iou := _iou(one == k, other == j)) > 0.5:
                    hits, overlap = hits + 1, overlap + iou
                    switches += k in last and last[k] != j
                    last[k] = j
                    matched.add(j)
        wrong += len(set(_ids(other)) - matched)
    return (hits - wrong - switches) / n_truth, (overlap - wrong - switches) / n_truth, switches


def _idf1_by_loops(true, found):
    """Every way to pair tracks, which are few: the best of them, found by going through true tracks one by one."""
    counts = {}
    for one, other in zip(true, found, strict=True):
        for k, j in itertools.product(_ids(one), _ids(other)):
            if _iou(one == k, other == j) > 0.5:
                counts[k, j] = counts.get((k, j), 0) + 1

    def best(tracks, used):
        if not tracks:
            return 0
        first, *rest = tracks
        options = [counts[k, j] + best(rest, used | {j}) for k, j in counts if k == first and j not in used]
        return max([best(rest, used), *options])

    n_truth, n_found = (sum(len(_ids(frame)) for frame in frames) for frames in (true, found))
    return 2 * best(sorted({k for k, _ in counts}), frozenset()) / (n_truth + n_found)


def _hota_by_loops(true, found):
    true_ids, found_ids = (sorted(set(itertools.chain(*map(_ids, frames)))) for frames in (true, found))
    of_true = {k: sum(k in _ids(frame) for frame in true) for k in true_ids}
    of_found = {j: sum(j in _ids(frame) for frame in found) for j in found_ids}
    agreed = dict.fromkeys(itertools.product(true_ids, found_ids), 0.0)
    for one, other in zip(true, found, strict=True):
        iou = {(k, j): _iou(one == k, other == j) for k in _ids(one) for j in _ids(other)}
        for k, j in iou:
            whole = sum(iou[k, i] for i in _ids(other)) + sum(iou[i, j] for i in _ids(one)) - iou[k, j]
            agreed[k, j] += iou[k, j] / whole if whole else 0
    alignment = {(k, j): agreed[k, j] / (of_true[k] + of_found[j] - agreed[k, j]) for k, j in agreed}
    matches = []
    for one, other in zip(true, found, strict=True):
        pairs = [(k, j, _iou(one == k, other == j)) for k in _ids(one) for j in _ids(other)]
        matches += _best_pairs([(k, j, iou, alignment[k, j] * iou) for k, j, iou in pairs if iou > 0])
    rows = []
    for threshold in THRESHOLDS:
        hits = [(k, j) for k, j, iou, _ in matches if iou >= threshold - 1e-9]
        detection = len(hits) / (sum(of_true.values()) + sum(of_found.values()) - len(hits))
        shares = [hits.count((k, j)) / (of_true[k] + of_found[j] - hits.count((k, j))) for k, j in hits]
        association = sum(shares) / max(1, len(hits))
        rows.append((np.sqrt(detection * association), detection, association))
    return np.mean(rows, 0)


def _best_pairs(pairs):
    """The set of pairs without a common object that has the highest sum."""
    if not pairs:
        return []
    (k, j, iou, worth), *rest = pairs
    without = _best_pairs(rest)
    taken = [(k, j, iou, worth), *_best_pairs([pair for pair in rest if pair[0] != k and pair[1] != j])]
    sums = [sum(pair[3] for pair in some) for some in (without, taken)]
    return taken if sums[1] > sums[0] else without


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_result_scores_1_whatever_its_numbers(seed):
    true, tracks, _ = true_film(np.random.default_rng(seed))
    new = {track.id: 90 - track.id for track in tracks}
    table = np.array([new.get(k, 0) for k in range(91)])
    others = [Track(new[track.id], track.begin, track.end, new.get(track.parent, 0)) for track in tracks]
    compared = film(true, tracks, [table[frame] for frame in true], others)
    of_ctc, of_mots = ctc_scores(compared), mots_scores(compared)
    known = [of_ctc.tra, of_ctc.det, of_ctc.seg, of_ctc.ct, of_ctc.tf, *of_ctc.bio]
    assert np.allclose(known, 1)
    assert np.allclose([of_mots.hota, of_mots.idf1, of_mots.motsa, of_mots.smotsa], 1)


def test_an_empty_result_scores_0():
    true, tracks, _ = true_film(np.random.default_rng(0))
    compared = film(true, tracks, [np.zeros_like(frame) for frame in true], [])
    of_ctc, of_mots = ctc_scores(compared), mots_scores(compared)
    assert (of_ctc.tra, of_ctc.det, of_ctc.lnk, of_ctc.seg, of_ctc.ct, of_ctc.tf) == (0,) * 6
    assert (of_mots.hota, of_mots.idf1, of_mots.motsa) == (0, 0, 0)


def test_frames_may_have_three_axes():
    true, tracks, parents = true_film(np.random.default_rng(3))
    found, of_found = spoiled(true, parents, np.random.default_rng(4))
    thick = film([frame[None] for frame in true], tracks, [frame[None] for frame in found], of_found)
    flat = film(true, tracks, found, of_found)
    assert ctc_scores(thick).tra == ctc_scores(flat).tra


def test_several_films_have_a_mean():
    frames, tracks = [np.array([[1, 1]])] * 2, [Track(1, 0, 1)]
    nothing = [np.zeros((1, 2), int)] * 2
    metric = FILM_METRICS["ctc"]
    good, bad = film(frames, tracks, frames, tracks, name="01"), film(frames, tracks, nothing, [], name="02")
    one = metric.tables([metric.score(good)])[0]
    assert list(one.rows) == ["01"]
    several = metric.tables([metric.score(good), metric.score(bad)])[0]
    assert list(several.rows) == ["01", "02", "mean"]
    assert several.rows["mean"]["TRA"] == 0.5
    assert several.rows["mean"]["objects"] == 4
    with pytest.raises(InputError, match="There is no film to score"):
        metric.tables([])


@pytest.mark.parametrize("name", FILM_METRICS)
def test_a_metric_explains_its_headings(name):
    metric = FILM_METRICS[name]
    frames, tracks = [np.array([[1, 1]])] * 2, [Track(1, 0, 1)]
    tables = metric.tables([metric.score(film(frames, tracks, frames, tracks))])
    assert metric.headline in tables[0].rows["film"]
    assert metric.headline in metric.terms


def test_films_that_differ_are_refused():
    one = np.zeros((2, 3), int)
    with pytest.raises(InputError, match=r"differ in shape: truth \(2, 3\), found \(3, 2\)"):
        Frame.of(one, one.T)
    with pytest.raises(InputError, match="there are more found frames than true ones"):
        film([one], [], [one, one], [])
    with pytest.raises(InputError, match="there are more true frames than found ones"):
        film([one, one], [], [one], [])
