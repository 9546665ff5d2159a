"""A peer of bench/run.py: does the work that argv[1], a JSON object, describes, as bench/support/worker.h says."""

import importlib
import json
import os
import sys
import time

import torch
from safetensors.torch import load_file

WARM_UPS = 2  # torch.compile compiles in the first


def peak_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def repeat(work, times):
    seconds = []
    on_gpu = torch.get_default_device().type == "cuda"
    for _ in range(times):
        start = time.perf_counter()
        work.run()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak_memory": peak_memory()}


def answer(work, line):
    command, argument = line.split(maxsplit=1)
    if command == "run":
        return work.repeat(int(argument)) if hasattr(work, "repeat") else repeat(work, int(argument))
    if command == "save":
        return work.save(argument)
    if command == "compare":
        return {"errors": work.compare(load_file(argument, device=torch.get_default_device().type))}
    raise ValueError(f"`{line}` is no command; known: run N, save FILE, compare FILE")


def main():
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the replies

    def reply(message):
        print(json.dumps(message), file=replies, flush=True)

    try:
        spec = json.loads(sys.argv[1])
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_default_device(spec.get("device", "cpu"))
        torch.manual_seed(1)
        work = importlib.import_module(spec["peer"]).make(spec)
        if not spec.get("check") and not hasattr(work, "repeat"):
            for _ in range(WARM_UPS):
                work.run()
        ready = work.describe()
        ready["threads"] = torch.get_num_threads()
        forget_peak()
        reply(ready)
        for line in sys.stdin:
            reply(answer(work, line.strip()))
    except Exception as error:  # the driver shows one line
        reply({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        raise


if __name__ == "__main__":
    main()
