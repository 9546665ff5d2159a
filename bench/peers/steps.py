"""Steps of `stoa train`, or of `stoa launch -n N -- train`, as a user runs them: not a peer, but ours in another set-up.

Each turn starts the command anew and stops it once it has logged enough steps. The first step is not counted.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


def peak_memory(pid):
    """Largest resident set of a process so far, in bytes; 0 where it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


class Steps:
    def __init__(self, spec):
        self.spec = spec
        self.memory = 0  # of the process that took the most
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="stoa-bench-"))
        text = (pathlib.Path(spec["path"]) / "wikitext.txt").read_text()
        self.data = self.folder / "document.txt"  # no empty line: one long document
        self.data.write_text("\n".join(line for line in text.split("\n") if line.strip()))

    def settings(self):
        vocabulary = str(pathlib.Path(self.spec["path"]) / "vocab.txt")
        return [*self.spec["set"], f'data.train=["{self.data}"]', f'data.eval=["{self.data}"]', f'data.tokenizer="{vocabulary}"',
                "train.log_every=1"]

    def steps(self, count):
        """The lines that the run logs for its first `count` steps."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        command = [str(ROOT / self.spec["program"]), *self.spec["launch"], "train", self.spec["recipe"], "--out", str(run)]
        for setting in self.settings():
            command += ["--set", setting]
        with open(self.folder / "output", "wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT)
        try:
            while True:
                ended = process.poll() is not None
                lines = self.lines(run / "metrics.jsonl")
                if len(lines) >= count:
                    return lines[:count]
                if ended:
                    text = (self.folder / "output").read_text(errors="replace").strip()
                    raise RuntimeError(f"`{' '.join(command[:6])}` ended with code {process.returncode}: {text.splitlines()[-1]}")
                time.sleep(0.05)
        finally:
            self.stop(process)

    @staticmethod
    def lines(file):
        text = file.read_text() if file.exists() else ""
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in lines if line["kind"] == "train"]

    def stop(self, process):
        """Kills it, and with it what it has started, which ends with its parent: nobody needs the run."""
        started = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        everybody = [process.pid, *map(int, started.read_text().split())] if started.exists() else []
        for pid in everybody:
            self.memory = max(self.memory, peak_memory(pid))
        process.kill()
        process.wait()
        end = time.monotonic() + 10
        while time.monotonic() < end and any(peak_memory(pid) for pid in everybody[1:]):
            time.sleep(0.01)

    def repeat(self, times):
        lines = self.steps(times + 1)
        return {"seconds": [1 / line["samples_per_second"] for line in lines[1:]], "peak_memory": self.memory}

    def describe(self):
        return {"processes": self.spec["processes"]}

    def save(self, file):
        save_file({"loss": torch.tensor([line["loss"] for line in self.steps(2)], dtype=torch.float64)}, file)
        return {"saved": file}

    def compare(self, tensors):
        found = torch.tensor([line["loss"] for line in self.steps(2)], dtype=torch.float64)
        return {"losses": ((found - tensors["loss"]).abs() / tensors["loss"].abs()).max().item()}

    def __del__(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def make(spec):
    return Steps(spec)
