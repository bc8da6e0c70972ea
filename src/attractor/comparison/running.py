"""One model on all images, in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from attractor.comparison.records import Footprint, Measured
from attractor.datasets import Dataset, Sample
from attractor.errors import InputError
from attractor.evaluation import as_given, pair_of
from attractor.images import write_labels
from attractor.instances import Instances
from attractor.metrics import METRICS, Metric, cvppp
from attractor.model import Model
from attractor.prediction.batches import in_groups, n_pixels_of
from attractor.prediction.image import Segmenter
from attractor.shortage import is_for_memory


@dataclass(frozen=True)
class Job:
    """What a process needs to know to run one model."""

    name: str
    file: Path
    dataset: Dataset
    metric: str
    tta: bool
    found: Path  # folder for label images, by the image's index
    device: str
    engine: str
    dtype: str


def in_own_process(job: Job) -> Iterator[Measured | Footprint]:
    """What `work` gives, from a new Python process that has run nothing else."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(job, sender), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            part = receiver.recv()
            if isinstance(part, InputError):
                raise part
            yield part
            if isinstance(part, Footprint):
                break
    except EOFError:
        process.join()
        raise InputError(
            f"{job.name}: its process ended before its work was done (exit code {process.exitcode}). If there is "
            "no other message above, the system stopped it for lack of memory: compare on crops, as with --crop 512."
        ) from None
    finally:
        receiver.close()
        process.join(timeout=5)
        process.terminate()  # does nothing if it has ended
        process.join()


def send(job: Job, sender: Connection) -> None:
    """Do the work and send each part of it, or what is wrong."""
    try:
        for part in work(job):
            sender.send(part)
    except InputError as error:
        sender.send(error)
    except (MemoryError, RuntimeError) as error:
        if not is_for_memory(error):
            raise
        sender.send(InputError(f"{job.name}: memory ran out; compare on crops, as with --crop 512."))
    except (KeyboardInterrupt, BrokenPipeError):  # the process that waits is ending, too
        pass


def work(job: Job) -> Iterator[Measured | Footprint]:
    """What the model does on each image and, at the end, what that took."""
    model = Model.load(job.file)
    segmenter = Segmenter(model, device=job.device, engine=job.engine, dtype=job.dtype, record=False)
    on_cuda = segmenter.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(segmenter.device)
    first = job.dataset[0]
    segmenter.segment(
        first.image, tta=job.tta, spacing=first.spacing, name=first.name
    )  # the first use compiles and loads
    metric, index = METRICS[job.metric], count()
    samples = (job.dataset[place] for place in range(len(job.dataset)))
    for group in in_groups(samples, segmenter.n_together, size=lambda sample: n_pixels_of(as_given(sample))):
        predicted = segmenter.predict_group(list(map(as_given, group)), tta=job.tta)
        for sample, prediction in zip(group, (one.result() for one in predicted), strict=True):
            write_labels(job.found / f"{next(index)}.tif", prediction.found.labels)
            scores = metric.score_image(pair_of(sample, _scored(segmenter, sample, metric, prediction.found, job.tta)))
            yield Measured(
                sample.name,
                float("nan") if scores is None else metric.value([scores]),
                scores,
                cvppp.score_image(pair_of(sample, prediction.found)),
                prediction.network_seconds,
                prediction.grouping_seconds,
            )
    method = segmenter.model.method
    yield Footprint(
        device=_device_in_words(segmenter.device),
        dtype=segmenter.dtype,
        n_parameters=sum(weights.numel() for weights in method.parameters()),
        is_ordered=segmenter.is_ordered,
        max_instances=method.max_instances,
        memory=_peak_memory(),
        device_memory=torch.cuda.max_memory_allocated(segmenter.device) if on_cuda else None,
    )


def _scored(segmenter: Segmenter, sample: Sample, metric: Metric, found: Instances, tta: bool) -> Instances:
    """What the metric scores: the objects found, or the model's proposals."""
    if not metric.n_proposals:
        return found
    return segmenter.propose(sample.image, metric.n_proposals, tta=tta, name=sample.name)


def _device_in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    n = torch.get_num_threads()
    return f"{device.type.upper()}, {n} thread{'s' * (n != 1)}" if device.type == "cpu" else device.type.upper()


def _peak_memory() -> int | None:
    """Most bytes that this process held at any time; None if the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin with what the parent held (Linux keeps it over fork and exec)
        kilobytes = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(kilobytes[1]) * 1024 if kilobytes else None
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
