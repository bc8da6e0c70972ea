"""Segmentation and training, one job at a time, each in a process of its own; a queue that outlives the server.

The queue is an SQLite file in the session. What was running when a server ended is queued again by the next one.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attractor.errors import InputError
from attractor.images import temporary_folder
from attractor.instances import Instances
from attractor.session import Session
from attractor.session.journal import now
from attractor.web.line import Line

QUEUE = "jobs.sqlite"
QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
MOST_QUEUED = 1000
MOST_TOGETHER = 100  # images of uploads in one job
LOG_LINES = 200
LOGS = 20  # of jobs
GRACE = 5.0  # seconds that a job has to clear up when it is told to end
KINDS = ("segment", "train")
LAST = (1 << 63) - 1  # number that the database can hold


@dataclass(frozen=True)
class Job:
    """One job, as it is now."""

    number: int
    kind: str  # "segment" or "train"
    arguments: dict[str, Any]
    state: str
    progress: float  # 0 to 1
    words: str  # what came of it, or what is wrong
    curves: dict[str, Any]  # of a training: loss and score against steps
    begun: str
    ended: str


class Jobs:
    """The queue of a session, and the thread that works on it."""

    def __init__(
        self,
        session: Session,
        changed: Callable[[str, dict[str, Any]], None],
        line: Line | None = None,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the queue and begin to work.

        Args:
            session: that the jobs are about.
            changed: is told "job" and what has changed of one, and "image" and the name of one that was segmented.
            line: of all who use the device.
            make_room: is called when a job has its turn there.
        """
        self.session, self._changed = session, changed
        self._line, self._make_room = line or Line(), make_room
        self._mutex = threading.RLock()
        self._wake = threading.Condition(self._mutex)
        self._database = sqlite3.connect(session.folder / QUEUE, check_same_thread=False, isolation_level=None)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY, kind TEXT, arguments TEXT, state TEXT, "
            "progress REAL, words TEXT, curves TEXT, begun TEXT, ended TEXT)"
        )
        self._database.execute("UPDATE jobs SET state = ?, progress = 0 WHERE state = ?", (QUEUED, RUNNING))
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._logs: OrderedDict[int, deque[str]] = OrderedDict()
        self._process: subprocess.Popen[str] | None = None
        self._running: int | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ asking

    def add(self, kind: str, arguments: dict[str, Any]) -> Job:
        """Put a job at the end of the queue.

        Raises:
            InputError: if there is no such kind, an argument has an impossible value, or the queue is full.
        """
        if kind not in KINDS:
            raise InputError(f'There is no job "{str(kind)[:50]}"; there are {" and ".join(KINDS)}.')
        check_values(self.session, arguments)
        with self._mutex:
            if sum(job.state == QUEUED for job in self.all()) >= MOST_QUEUED:
                raise InputError(f"{MOST_QUEUED:,} jobs are waiting; cancel some, or wait until they are done.")
            cursor = self._database.execute(
                "INSERT INTO jobs (kind, arguments, state, progress, words, curves, begun, ended) "
                "VALUES (?, ?, ?, 0, '', '{}', '', '')",
                (kind, json.dumps(arguments), QUEUED),
            )
            job = self.get(int(cursor.lastrowid or 0))
            self._wake.notify_all()
        self._tell(job)
        return job

    def add_images(self, names: list[str], arguments: dict[str, Any]) -> Job:
        """Have images segmented: by the last job of the queue if it does so for others, else by a new one.

        Loading a model takes longer than most images, and uploads come one by one.

        Raises:
            InputError: if the queue is full.
        """
        with self._mutex:
            row = self._database.execute(
                "SELECT * FROM jobs WHERE state = ? ORDER BY number DESC LIMIT 1", (QUEUED,)
            ).fetchone()
            last = None if row is None else _job(row)
            before = [] if last is None else last.arguments.get("images", [])
            alike = last is not None and last.kind == "segment" and last.arguments == {**arguments, "images": before}
            if last is None or not alike or not before or len(before) + len(names) > MOST_TOGETHER:
                return self.add("segment", {**arguments, "images": names})
            return self._set(last.number, arguments=json.dumps({**arguments, "images": [*before, *names]}))

    def get(self, number: int) -> Job:
        """One job.

        Raises:
            InputError: if there is none of this number.
        """
        with self._mutex:
            row = self._database.execute("SELECT * FROM jobs WHERE number = ?", (min(number, LAST),)).fetchone()
        if row is None:
            raise InputError(f"There is no job {number}.")
        return _job(row)

    def all(self) -> list[Job]:
        """All jobs, first to last."""
        with self._mutex:
            return [_job(row) for row in self._database.execute("SELECT * FROM jobs ORDER BY number")]

    def log(self, number: int) -> list[str]:
        """The last lines that the process of a job wrote, if it is one of the last that this server ran."""
        return list(self._logs.get(number, ()))

    def cancel(self, number: int) -> Job:
        """End a job, or take it out of the queue; one that has ended stays as it is.

        Raises:
            InputError: if there is none of this number.
        """
        with self._mutex:
            job = self.get(number)
            if job.state in ENDED:
                return job
            self._set(number, state=CANCELLED, ended=now())
            process = self._process if self._running == number else None
        if process is not None:
            _end(process)
        return self.get(number)

    def close(self) -> None:
        """End the job that runs, which the next server begins anew, and stop working."""
        with self._mutex:
            self._ending = True
            self._wake.notify_all()
            process = self._process
        if process is not None:
            _end(process)
        self._thread.join(2 * GRACE)
        with self._mutex:
            self._database.close()

    # ----------------------------------------------------------------- working

    def _work(self) -> None:
        while self._is_needed():
            with self._line.turn():
                if (job := self._next()) is None:  # it was cancelled meanwhile
                    continue
                try:
                    self._make_room()
                    self._do(job)
                except InputError as error:
                    self._fail(job.number, str(error))
                except Exception as error:  # one job must not keep the others from being done
                    self._fail(job.number, f"{type(error).__name__}: {error}")

    def _is_needed(self) -> bool:
        """Wait until there is a job; False when the server ends."""
        with self._mutex:
            while not self._ending and self._waiting() is None:
                self._wake.wait()
            return not self._ending

    def _next(self) -> Job | None:
        """The next job, which runs from now on; None if there is none, or the server ends."""
        with self._mutex:
            if self._ending or (number := self._waiting()) is None:
                return None
            self._running = number
            self._log = self._logs[number] = deque(maxlen=LOG_LINES)
            if len(self._logs) > LOGS:
                self._logs.popitem(last=False)
            return self._set(number, state=RUNNING, begun=now())

    def _waiting(self) -> int | None:
        row = self._database.execute(
            "SELECT number FROM jobs WHERE state = ? ORDER BY number LIMIT 1", (QUEUED,)
        ).fetchone()
        return None if row is None else int(row[0])

    def _do(self, job: Job) -> None:
        with temporary_folder(self.session.folder) as work, self._worker(job, work) as process:
            assert process.stdout is not None
            problem = ""
            for line in process.stdout:
                problem = self._take(job, json.loads(line)) or problem
            process.wait()
        with self._mutex:
            if self._ending or self.get(job.number).state != RUNNING:
                return
            if process.returncode or problem:
                last = next((line for line in reversed(self._log) if line.strip()), "it gave no reason")
                self._fail(job.number, problem or f"The process ended with code {process.returncode}: {last}")
            else:
                self._set(job.number, state=DONE, progress=1.0, ended=now())

    @contextmanager
    def _worker(self, job: Job, work: Path) -> Iterator[subprocess.Popen[str]]:
        """The process of a job; it is ended after the block."""
        request = {**job.arguments, "kind": job.kind, "out": str(work)}
        project = self.session.project
        if job.kind == "segment":
            names = self._names(job)
            request["images"] = [[name, str(self.session.path(name))] for name in names]
            request["model"] = model_of(self.session, job.arguments.get("model"))
        else:
            self.session.flush()
            request |= {"folder": str(self.session.folder), "project": project}
        process = subprocess.Popen(
            [sys.executable, "-m", "attractor.web.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        with process:
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps(request, default=str) + "\n")
                process.stdin.flush()
                listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
                listener.start()
                with self._mutex:
                    self._process = process
                    if self._ending or self.get(job.number).state != RUNNING:
                        _end(process)
                yield process
                listener.join(GRACE)
            finally:
                with self._mutex:
                    self._process, self._running = None, None
                _end(process)

    def _names(self, job: Job) -> list[str]:
        """The images to segment: those that were named and have not been removed since, or all.

        Raises:
            InputError: if none is left.
        """
        named = job.arguments.get("images")
        names = [name for name in named or self.session.images if name in self.session.images]
        if named and not names:
            raise InputError("The images were removed from the session.")
        return names

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._log.append(line.rstrip()[-500:])

    def _take(self, job: Job, said: dict[str, Any]) -> str:
        """What a line of the process means; gives the problem if it is one that ends the job."""
        if "error" in said:
            return str(said["error"])
        if "found" in said and said["found"] in self.session.images:  # it may have been removed meanwhile
            with closing(np.load(said["file"], allow_pickle=False)) as file:
                found = Instances(file["labels"], file["classes"], file["scores"])
            os.unlink(said["file"])
            with suppress(InputError):  # the image was removed meanwhile
                self.session.put(said["found"], found)
                self._changed("image", {"image": said["found"]})
        if "round" in said:
            self.session.adopt(said["round"], start=job.arguments.get("start"))
        values: dict[str, object] = {name: said[name] for name in ("progress", "words") if name in said}
        if "failed" in said:
            values["words"] = f"{said['failed']}: {said['words']}"
        if "curves" in said:
            values["curves"] = json.dumps(said["curves"])
        if values:
            with self._mutex:
                if self.get(job.number).state == RUNNING:
                    self._set(job.number, **values)
        return ""

    def _fail(self, number: int, words: str) -> None:
        with self._mutex:
            if not self._ending and self.get(number).state == RUNNING:
                self._set(number, state=FAILED, words=words, ended=now())

    def _set(self, number: int, **values: object) -> Job:
        names = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(f"UPDATE jobs SET {names} WHERE number = ?", (*values.values(), number))
        job = self.get(number)
        self._tell(job)
        return job

    def _tell(self, job: Job) -> None:
        self._changed("job", vars(job))


def _job(row: tuple[Any, ...]) -> Job:
    number, kind, arguments, state, progress, words, curves, begun, ended = row
    return Job(number, kind, json.loads(arguments), state, progress, words, json.loads(curves), begun, ended)


def check_values(session: Session, arguments: Mapping[str, Any]) -> None:
    """Refuse images that are not there, and numbers that are none.

    Raises:
        InputError: that names the first of them.
    """
    known = session.images
    for name in arguments.get("images", ()):
        if name not in known:
            raise InputError(f"There is no image {str(name)[:100]!r} in this session.")
    for key in ("object_size", "minutes"):
        value = arguments.get(key, 1)
        if isinstance(value, bool) or not 0 < value < math.inf:
            raise InputError(f"{key} is {value}; it must be a number above 0.")


def model_of(session: Session, wanted: object) -> str:
    """The model to segment with: the one that is named, else the one in use."""
    chosen = str(wanted or session.model)
    if not chosen:
        raise InputError("This session has no model yet: train one on what was reviewed.")
    own = session.folder / chosen
    return str(own if own.is_file() else chosen)


def _end(process: subprocess.Popen[str]) -> None:
    """Tell a process to end, and make it, if it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
