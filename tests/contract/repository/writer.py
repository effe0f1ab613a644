"""A writer in a process of its own: `python -m tests.contract.repository.writer WHAT REPO [ARGUMENT]`. It says what it waits for."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

from contract.errors import NotWritten
from contract.repository import read_repository
from contract.repository.transaction.folder import only_writer, recover, silent
from contract.repository.write import changed, written
from exporter.remove import remove_tasks
from tests.contract.repository.states import build, keep_all, names_in, replace_with, state


def say(sentence: str) -> None:
    print(sentence, flush=True)


def remove(repo: Path, task: str) -> None:
    remove_tasks(repo, [task], waiting=say)


def create(repo: Path, source: str) -> None:
    with written(repo, force=False, waiting=say) as folder:
        build(folder, read_repository(source))


def create_on_full_disk(repo: Path, source: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    create(repo, source)


def hang(repo: Path, argument: str) -> None:
    with changed(repo) as change:
        keep_all(change)
        say("holding")
        sys.stdin.read()


def campaign(repo: Path, argument: str) -> None:
    """Kill ROUNDS writers of `repo` at random moments; `argument`: OLD,NEW,ROUNDS,SEED. Says how many died in which state."""
    one, two, rounds, seed = argument.split(",")
    old, new = read_repository(one), read_repository(two)
    dice = random.Random(int(seed))
    os.fsync = lambda descriptor: None  # it only shows in a power cut, and most kills would fall into it
    changes = [
        lambda: replace_with(repo, old),
        lambda: remove_tasks(repo, ["alpha"], gc=True),
        lambda: replace_with(repo, new),
    ]
    states, durations = [], []
    for change in changes:
        started = time.monotonic()
        change()
        durations.append(time.monotonic() - started)
        states.append(state(repo))
    found = [0, 0, 0]
    littered = 0
    for _ in range(int(rounds)):
        child = os.fork()
        if child == 0:
            while True:
                for change in changes[1:] if "alpha" in read_repository(repo).tasks else changes:
                    change()
        time.sleep(dice.uniform(0, sum(durations)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        littered += len(names_in(repo.parent)) > 1
        recover(repo)
        found[states.index(state(repo))] += 1
        if dice.random() < 0.5:
            with only_writer(repo, silent):
                pass
            assert names_in(repo.parent) == [repo.name]
    say(f"{found} {littered}")


if __name__ == "__main__":
    what, path, *rest = sys.argv[1:]
    try:
        globals()[what](Path(path), *rest)
    except NotWritten as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(2)
