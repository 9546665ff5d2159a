"""One process that does one piece of work, timed on demand."""

import json
import os
import select
import signal
import subprocess
import time


class Failed(Exception):
    """A contender could not do its work; one line."""


class Contender:
    running = []

    def __init__(self, title, label, command, spec, environment, folder, log):
        self.title, self.label, self.spec, self.log = title, label, spec, log
        self.buffer, self.facts = b"", None
        self.turns, self.memory, self.per_turn, self.warm_up = [], 0, 1, False
        self.tallies = {}  # name -> a repetition's part in each turn
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [*command, json.dumps(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, cwd=folder, start_new_session=True)
        Contender.running.append(self)

    def ready(self, timeout=1800):
        """Waits until all that is not timed is done."""
        if self.facts is None:
            self.facts = self.read(timeout)
        return self

    def ask(self, line, timeout=1800):
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.last_words()) from None
        return self.read(timeout)

    def read(self, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise Failed(f"no answer in {timeout} s")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise Failed(self.last_words())
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def last_words(self):
        code = self.process.wait(5) if self.process.poll() is None else self.process.returncode
        lines = open(self.log, errors="replace").read().strip().splitlines()
        return f"ended with code {code}: {lines[-1] if lines else 'no message'} (all of it: {self.log})"

    def run(self, times):
        answer = self.ask(f"run {times}")
        self.memory = max(self.memory, answer["peak_memory"])
        self.added = {name: tally / times for name, tally in answer.get("tallies", {}).items()}
        return answer["seconds"]

    def probe(self, turn_seconds):
        """Runs a little, to warm up and to see how many repetitions make a turn. Returns the best time."""
        self.run(1)
        times = self.run(1)
        if times[0] < turn_seconds:
            times += self.run(min(100, int(turn_seconds / times[0]) + 1))
        self.per_turn = max(1, min(2000, round(turn_seconds / min(times))))
        self.warm_up = min(times) < 0.2  # what the turn before left in the caches would show
        return min(times)

    def turn(self):
        times = self.run(self.per_turn + self.warm_up)
        self.turns.append(times[self.warm_up :])
        for name, tally in self.added.items():
            self.tallies.setdefault(name, []).append(tally)

    @property
    def seconds(self):
        return [second for turn in self.turns for second in turn]

    def stop(self):
        if self in Contender.running:
            Contender.running.remove(self)
        try:
            self.process.stdin.close()
            self.process.wait(3)
        except (subprocess.TimeoutExpired, OSError):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: what it started goes with it
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()

    @staticmethod
    def stop_all():
        for contender in list(Contender.running):
            contender.stop()
