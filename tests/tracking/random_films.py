"""Random films, in which everything that can go wrong does: objects missed, added, merged, cut, and mistaken."""

import numpy as np

from attractor.tracks import Track

SHAPE = (20, 26)


def true_film(random, n_frames=7):
    """Squares that move, appear, end and divide: label images, and their tracks."""
    frames, tracks = [], {}
    living = {k: (random.integers(2, 16), random.integers(2, 20)) for k in range(1, random.integers(3, 6))}
    parents, highest = {}, len(living)
    for t in range(n_frames):
        frame = np.zeros(SHAPE, np.int32)
        for k, (row, column) in list(living.items()):
            frame[row : row + 4, column : column + 5] = np.where(
                frame[row : row + 4, column : column + 5], frame[row : row + 4, column : column + 5], k
            )
        frames.append(frame)
        for k in np.unique(frame[frame > 0]).tolist():
            tracks[k] = Track(k, tracks[k].begin if k in tracks else t, t, parents.get(k, 0))
        following = {}
        for k, (row, column) in living.items():
            if k not in np.unique(frame):
                continue
            here = [
                int(np.clip(row + random.integers(-1, 2), 0, 16)),
                int(np.clip(column + random.integers(-1, 2), 0, 20)),
            ]
            fate = random.random()
            if fate < 0.1:
                continue
            if fate < 0.3:
                for step in (-5, 5):
                    highest += 1
                    parents[highest] = k
                    following[highest] = (here[0], int(np.clip(here[1] + step, 0, 20)))
            else:
                following[k] = tuple(here)
        living = following
    return frames, sorted(tracks.values(), key=lambda track: track.id), parents


def spoiled(frames, parents, random):
    """The same film as somebody might have found it: label images, and their tracks."""
    highest = max(int(frame.max()) for frame in frames)
    now, parents = {k: k for k in range(1, highest + 1)}, dict(parents)
    found = []
    for frame in frames:
        new = np.zeros_like(frame)
        for k in np.unique(frame[frame > 0]).tolist():
            fate = random.random()
            if fate < 0.08:
                continue  # missed
            if fate < 0.2:
                highest += 1
                if fate < 0.14:
                    parents[highest] = now[k]  # taken for its child
                now[k] = highest  # mistaken for another
            mask = np.roll(frame == k, random.integers(-1, 2, 2), (0, 1))
            if fate > 0.93:
                mask[:, : np.flatnonzero(mask.any(0))[0] + 2] = False  # cut
            new[mask] = now[k]
        if random.random() < 0.3:
            highest += 1
            new[17:20, 0:4] = highest  # nothing is there
        if random.random() < 0.15 and (ids := np.unique(new[new > 0])).size > 1:
            new[new == ids[0]] = ids[1]  # two in one
        found.append(new)
    return as_tracks(found, {now.get(k, k): now.get(parent, parent) for k, parent in parents.items()})


def as_tracks(frames, parents):
    """Label images in which each id is in successive frames, and their tracks."""
    frames = [frame.copy() for frame in frames]
    tracks, now, highest = {}, {}, max(int(frame.max()) for frame in frames)
    for t, frame in enumerate(frames):
        for k in np.unique(frame[frame > 0]).tolist():
            number = now.get(k)
            if number is None or tracks[number].end < t - 1:
                highest += 1
                former = number or now.get(parents.get(k, 0), 0)
                parent = former if former and tracks[former].end < t else 0
                now[k] = number = highest
                tracks[number] = Track(number, t, t, parent)
            tracks[number] = Track(number, tracks[number].begin, t, tracks[number].parent)
            frame[frame == k] = -number
        np.abs(frame, out=frame)
    return frames, list(tracks.values())
