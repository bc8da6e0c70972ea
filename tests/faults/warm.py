"""A process that has imported everything, and forks for each command: a trial then takes no seconds to begin.

After a rehearsal it reads one job a line from stdin, as JSON, and answers each with one line. A job is a command's
arguments, the folder to run it in, and what is to befall it: a signal after some seconds, or a limit on a resource.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

LONGEST = 120  # seconds that a command may take; one that hangs is killed, which its code shows


def main() -> None:
    """Rehearse the commands of the first line, so that nothing is left to import; then answer jobs until stdin ends."""
    import torch

    from attractor.cli import main as command_line

    torch.set_num_threads(1)
    rehearsal = json.loads(sys.stdin.readline())
    os.chdir(rehearsal["folder"])
    with open("said", "w") as said, redirect_stdout(said), redirect_stderr(said):
        codes = [command_line(arguments) for arguments in rehearsal["commands"]]
    print(json.dumps(codes), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a process of its own; its exit code, as a shell has it, its seconds and its words."""
    words, begins = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        become_command(job, words[1], begins[1])
    for end in (words[1], begins[1]):
        os.close(end)
    os.read(begins[0], 1)
    begun = time.monotonic()
    status = 0
    if job.get("signal") is not None and not (status := wait(child, job["after"])):
        os.kill(child, job["signal"])
    if not (status := status or wait(child, LONGEST)):
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1] << 1 | 1
    seconds = time.monotonic() - begun
    with os.fdopen(words[0], errors="replace") as said:
        os.close(begins[0])
        return {"code": exit_code(status >> 1), "seconds": seconds, "said": said.read()}


def wait(child: int, seconds: float) -> int:
    """Twice its status and 1, once a process has ended; 0 if it has not after some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status << 1 | 1
        time.sleep(0.002)
    return 0


def exit_code(status: int) -> int:
    """As a shell says it: 128 and the number of the signal for a process that one has ended."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def become_command(job: dict[str, Any], words: int, begins: int) -> NoReturn:
    """Run the command line in this process, and end it."""
    code = 70
    try:
        os.chdir(job["folder"])
        for stream in (1, 2):
            os.dup2(words, stream)
        sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["attractor", *job["arguments"]]
        from attractor.cli import run

        set_limits(job.get("limits", {}))
        os.write(begins, b"x")
        code = run()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def set_limits(limits: dict[str, int]) -> None:
    """Limit resources of this process; memory and open files by what it may take beyond what it has."""
    for name, limit in limits.items():
        if name == "RLIMIT_AS":
            limit += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if name == "RLIMIT_NOFILE":
            free = os.dup(0)
            os.close(free)
            limit += free
        number = getattr(resource, name)
        resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))


if __name__ == "__main__":
    main()
