"""Measures one work: starts all contenders, lets them take turns, and makes rows of the result."""

import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

from harness.contender import Contender, Failed
from harness.machine import QUIET, Usage
from harness.works import ROOF_COPY, ROOF_PRODUCTS, Candidate

STEADY = 0.05  # ratios of medians and of best times may differ by this much
UNWANTED = ("MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_", "TORCH", "ATEN_", "LD_PRELOAD")  # would favour one side
SLOW_BF16 = 10e9  # FLOP/s; below it bf16 is emulated, and larger products would take minutes
CLOSE = 1.1  # candidates this close to the best of their row stay


@dataclass
class Settings:
    root: pathlib.Path
    build: pathlib.Path
    python_path: str
    threads: int
    rounds: int = 5  # at least
    seconds: float = 10  # at least
    turn: float = 0.5  # seconds of a contender's turn
    has_packages: bool = True
    material: dict = field(default_factory=dict)  # name -> path


class Lab:
    """Starts contenders, and knows the machine's roofs."""

    def __init__(self, settings):
        self.settings = settings
        self.roofs = {}  # kind -> (candidate, text)
        self.logs = settings.build / "bench/logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def say(self, text):
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def start(self, work, candidate, recipe=None, title=None):
        """`title` is what messages call it."""
        settings = self.settings
        environment = {key: value for key, value in os.environ.items() if not key.startswith(UNWANTED)}
        environment |= {"OMP_NUM_THREADS": str(settings.threads), **candidate.environment}
        if candidate.program == "python":
            environment |= {"PYTHONPATH": settings.python_path, "PYTHONDONTWRITEBYTECODE": "1",
                            "TORCHINDUCTOR_CACHE_DIR": str(settings.root / ".deps/bench-cache")}
            command = [sys.executable, str(settings.root / "bench/peers/worker.py")]
        else:
            command = [str(settings.build / "bench" / f"bench_{candidate.program}")]
        spec = dict(candidate.spec)
        if recipe is not None and candidate.program == "python":
            spec["recipe"] = recipe
        if work.material:
            spec["path"] = settings.material[work.material]
        title = title or candidate.label
        log = self.logs / "".join(c if c.isalnum() else "_" for c in f"{work.name} {title}")
        return Contender(title, candidate.label, command, spec, environment, settings.root, f"{log}.log")

    def measure_roofs(self, roof_work):
        """Finds the fastest matrix product, in fp32 and bf16, and the speed of copying; returns texts for the head."""
        lines = []
        for kind, makers in (("fp32", ("LibTorch", "Stoa")), ("bf16", ("LibTorch",))):
            best = 0, None
            for shape, by in itertools.product(ROOF_PRODUCTS, makers):
                candidate = Candidate(f"{kind} {'x'.join(map(str, shape))}, {by}",
                                      {"product": shape, "type": kind, "by": by}, program="roof")
                rate = self.rate(roof_work, candidate, "flops")
                if rate > best[0]:
                    best = rate, candidate
                if kind == "bf16" and rate < SLOW_BF16:
                    break
            lines.append(f"GEMM {best[1].label}: {best[0] / 1e9:.0f} GFLOP/s")
            if kind == "fp32":
                self.roofs["gemm"] = best[1]
        self.roofs["copy"] = Candidate("copy", {"copy": ROOF_COPY}, program="roof")
        lines.append(f"memory copy, read + written: {self.rate(roof_work, self.roofs['copy'], 'bytes') / 1e9:.1f} GB/s")
        return lines

    def rate(self, work, candidate, unit):
        contender = self.start(work, candidate).ready()
        best = min(contender.probe(self.settings.turn), *(min(contender.run(contender.per_turn)) for _ in range(3)))
        contender.stop()
        return contender.facts[unit] / best


def ours_of(work):
    return Candidate("ours", work.spec, work.environment, work.program)


class Measurement:
    def __init__(self, lab, work):
        self.lab, self.work, self.settings = lab, work, lab.settings
        self.rows = []  # (peer, [contenders])

    def gather(self):
        """Starts everybody. Of each row only the fastest candidates stay: the others would cost time and memory."""
        work = self.work
        self.ours = self.lab.start(work, ours_of(work)).ready()
        self.ours.probe(self.settings.turn)
        self.roof = self.lab.start(work, self.lab.roofs[work.roof]).ready() if work.roof else None
        if self.roof:
            self.roof.probe(self.settings.turn)
        for peer in work.peers:
            contenders = self.fastest(peer)
            if contenders:
                self.rows.append((peer, contenders))

    def fastest(self, peer):
        recipe = self.ours.facts.get("recipe") if self.work.takes_recipe else None
        candidates = [c for c in peer.candidates if self.settings.has_packages or not c.spec.get("compile")]
        looks = {}  # contender: its best time
        for group in [[c] for c in candidates] if self.work.large else [candidates]:
            contenders = [self.lab.start(self.work, c, recipe, f"{peer.name}: {c.label}".removesuffix(": ")) for c in group]
            looks = self.keep_fastest({**looks, **self.look(contenders)})
        return list(looks)

    def look(self, contenders):
        """The best times of those that can do the work; the others are stopped."""
        looks = {}
        for prepare in (self.check_facts, lambda contender: contender.probe(self.settings.turn)):
            for contender in list(contenders):
                try:
                    looks[contender] = prepare(contender)
                except Failed as failure:
                    self.lab.say(f"{self.work.name}: left out: {contender.title}: {failure}")
                    contender.stop()
                    contenders.remove(contender)
        return {contender: looks[contender] for contender in contenders}

    def keep_fastest(self, looks):
        best = min(looks.values(), default=0)
        kept = {contender: time for contender, time in looks.items() if time <= (1 if self.work.large else CLOSE) * best}
        for contender in looks.keys() - kept.keys():
            contender.stop()
        return kept

    def check_facts(self, contender):
        """A peer that is not the same work would be no peer."""
        ours, theirs = self.ours.facts, contender.ready().facts
        threads, our_threads = (facts["threads"] * facts.get("processes", 1) for facts in (theirs, ours))
        if threads != our_threads:
            raise Failed(f"runs on {threads} threads, ours on {our_threads}")
        if "peer" in contender.spec and "parameters" in ours and theirs["parameters"] != ours["parameters"]:
            raise Failed(f"has {theirs['parameters']} parameters, ours {ours['parameters']}")

    def take_turns(self):
        everybody = [self.ours, *([self.roof] if self.roof else []), *(c for _, row in self.rows for c in row)]
        usage, start, rounds = Usage(), time.monotonic(), 0
        least = min(self.settings.rounds, self.work.rounds or self.settings.rounds)
        while rounds < least or time.monotonic() - start < self.settings.seconds:
            for contender in everybody:
                contender.turn()
            rounds += 1
        self.others, self.users = usage.others({c.process.pid for c in everybody})
        self.rounds = rounds

    def value(self, seconds):
        """In the work's unit."""
        return seconds if self.work.unit == "s" else self.ours.facts["amount"] / seconds

    def result(self, shared):
        """Rows of JSON. `shared` are the facts that all rows of a run have."""
        ours, rows = self.ours, []
        median, best = statistics.median(ours.seconds), min(ours.seconds)
        share = self.share_of_roof(median)
        for peer, row in self.rows:
            fastest = min(row, key=lambda contender: statistics.median(contender.seconds))
            peer_median, peer_best = statistics.median(fastest.seconds), min(fastest.seconds)
            agrees = abs(peer_best / best / (peer_median / median) - 1) <= STEADY
            rows.append(self.row(peer.name, median, peer_median, peer.aim) | {
                "set_up": fastest.label, "rival": peer.rival, "ours_best": self.value(best),
                "peer_best": self.value(peer_best), "ratio_best": peer_best / best, "peer_memory": fastest.memory,
                "memory_aim": self.work.memory_aim,
                "peer_repetitions": len(fastest.seconds), "steady": agrees and self.others <= QUIET})
            rows[-1] |= messages(ours, fastest, peer)
        smallest = min((row["ratio"] for row in rows if row["rival"]), default=None)
        for row in rows:
            row["best_peer"] = row["rival"] and row["ratio"] == smallest
        if share is not None and self.work.roof_aim:
            roof = "GEMM roof" if self.work.roof == "gemm" else "memory copy roof"
            rows.append(self.row(roof, median, share * median, self.work.roof_aim) | {"rival": False})
        for row in rows:
            row |= {"roof_share": share, "ours_memory": ours.memory, "repetitions": len(ours.seconds),
                    "rounds": self.rounds, "others_cores": round(self.others, 3), "others": self.users} | shared
        return rows

    def row(self, peer_name, ours, peer, aim):
        return {"name": self.work.name, "ours": self.value(ours), "peer": self.value(peer), "peer_name": peer_name,
                "unit": self.work.unit, "ratio": peer / ours, "aim": aim}

    def share_of_roof(self, seconds):
        """How much of the time the roof would need for the same products (or bytes) explains."""
        unit = {"gemm": "flops", "copy": "bytes"}.get(self.work.roof)
        if unit is None or unit not in self.ours.facts:
            return None
        rate = self.roof.facts[unit] / min(self.roof.seconds)
        return self.ours.facts[unit] / rate / seconds


def messages(ours, theirs, peer):
    """Of works that send: bytes that a process sends in a repetition and seconds that it waits for messages; the share of
    communication that is hidden, beside a peer that is ours but waits for every message at once."""
    found = {}
    if "sent" in ours.facts:
        found = {"ours_sent": ours.facts["sent"], "peer_sent": theirs.facts.get("sent")}
    waited = [statistics.median(contender.tallies["waited"]) for contender in (ours, theirs) if "waited" in contender.tallies]
    if len(waited) == 2:
        found |= {"ours_waited": waited[0], "peer_waited": waited[1]}
        if peer.waits and waited[1] > 0:
            found |= {"hidden": 1 - waited[0] / waited[1], "hidden_aim": peer.hidden_aim}
    return found


def measure(lab, work, facts):
    measurement = Measurement(lab, work)
    try:
        lab.say(f"{work.name}: starting")
        measurement.gather()
        titles = "; ".join(c.title for _, row in measurement.rows for c in row)
        lab.say(f"{work.name}: taking turns: ours; {titles}")
        measurement.take_turns()
        rows = measurement.result(facts)
        summary = "; ".join(f"{row['ratio']:.2f} times as fast as {row['peer_name']}" for row in rows)
        lab.say(f"{work.name}: {summary}")
        return rows
    finally:
        Contender.stop_all()


def check(lab, work):
    """Compares what ours and the peers compute from the same inputs; returns the number of peers that differ."""
    wrong = 0
    try:
        ours = lab.start(work, ours_of(work)).ready()
        with tempfile.TemporaryDirectory() as folder:
            ours.ask(f"save {folder}/reference")
            for candidate in work.check:
                candidate = Candidate(candidate.label, {**candidate.spec, "check": True}, candidate.environment)
                peer = lab.start(work, candidate, ours.facts.get("recipe")).ready()
                errors = peer.ask(f"compare {folder}/reference")["errors"]
                good = max(errors.values()) <= work.tolerance
                if "parameters" in ours.facts:
                    good = good and ours.facts["parameters"] == peer.facts["parameters"]
                wrong += not good
                what = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
                print(f"{work.name}: {'same' if good else 'DIFFERENT'}: {candidate.label}: {what}", flush=True)
                peer.stop()
    finally:
        Contender.stop_all()
    return wrong


def commit(root):
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def write_rows(file, rows):
    partial = f"{file}.partial"
    with open(partial, "w") as out:
        json.dump(rows, out, indent=1)
        out.write("\n")
    os.replace(partial, file)
