"""The driver of bench/run.sh, which says how to use it."""

import argparse
import datetime
import os
import pathlib
import subprocess
import sys

from harness import machine
from harness.contender import Contender, Failed
from harness.measure import Lab, Settings, check, commit, measure, write_rows
from harness.table import NOTES, messages, table
from harness.works import Work, all_works, select

ROOT = pathlib.Path(__file__).resolve().parent.parent


def fail(text, code=2):
    print(f"bench: {text}", file=sys.stderr)
    sys.exit(code)


def arguments():
    parser = argparse.ArgumentParser(prog="bench/run.sh",
                                     description="Measures Stoa beside what a user would pick instead.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="works whose names begin so; all usual ones if none is given")
    parser.add_argument("--json", metavar="FILE", help="write the rows here, after each work")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--quick", action="store_true", help="few repetitions: tries the benchmarks out, measures little")
    parser.add_argument("--check", action="store_true", help="time nothing: compare what ours and the peers compute")
    parser.add_argument("--all", action="store_true", help="sizes that are left out otherwise, too")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="CPU threads of every contender (all cores)")
    parser.add_argument("--build", default="build/release", help=argparse.SUPPRESS)
    parser.add_argument("--quiet-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def python_path(build):
    """The site-packages folder of the very LibTorch that Stoa was built with, then the peers' packages."""
    with open(build / "CMakeCache.txt") as cache:
        library = next(line.split("=", 1)[1].strip() for line in cache if line.startswith("TORCH_LIBRARY:"))
    site = pathlib.Path(library).parents[2]  # SITE/torch/lib/libtorch.so
    if not (site / "torch/__init__.py").exists():
        fail(f"the LibTorch that Stoa is built with ({library}) has no Python side, which the peers need: build with the "
             "wheel's (scripts/setup.sh fetches it; leave CMAKE_PREFIX_PATH and Torch_DIR unset)")
    path = f"{site}:{ROOT / '.deps/bench'}:{ROOT / '.deps/python'}"
    probe = subprocess.run([sys.executable, "-c", "import torch, numpy, safetensors.torch"], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": path})
    if probe.returncode:
        reason = probe.stderr.strip().splitlines()[-1]
        fail(f"this Python ({sys.executable}) cannot import torch, numpy and safetensors ({reason}): run scripts/setup.sh "
             "with the same python3")
    return path


def has_packages(path):
    code = "import filelock, fsspec, jinja2, networkx, sympy, PIL, cv2, pandas, polars, sklearn, onnxruntime, tokenizers, transformers"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": path})
    return tried.returncode == 0


MATERIAL = {"photos": ("photos", "8", "32"), "clicks": ("clicks.txt", "1000000"), "wikitext": ("wikitext",),
            "minilm": ("minilm",)}  # bench/peers/NAME.py: its arguments


def make(material, path):
    """The place of files that are the same in every run, made once; None where they cannot be made."""
    name, *arguments = MATERIAL[material]
    place = ROOT / ".deps/bench-data" / name
    made = subprocess.run([sys.executable, str(ROOT / f"bench/peers/{material}.py"), str(place), *arguments],
                          stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": f"{path}:{ROOT / 'bench'}"})
    if made.returncode == 0:
        return str(place)
    reason = (made.stderr.strip().splitlines() or ["no message"])[-1]
    print(f"bench: what needs bench/peers/{material}.py is left out: {reason}", file=sys.stderr)
    return None


def prepare(options, works):
    build = ROOT / options.build
    path = python_path(build)
    settings = Settings(ROOT, build, path, options.threads, has_packages=has_packages(path))
    if options.quick:
        settings.rounds, settings.seconds, settings.turn = 2, 0, 0.02
    if not settings.has_packages:
        print("bench: the packages of bench/peers/requirements.txt are missing (is pip's index in reach?): "
              "torch.compile and the image loaders are left out", file=sys.stderr)
        works = [work for work in works if not work.uses_pip]
    settings.material = {material: make(material, path) for material in {work.material for work in works} - {None}}
    return settings, [work for work in works if work.material is None or settings.material[work.material]]


def measure_all(lab, works, options):
    roofs = lab.measure_roofs(Work("roof", "roof", {}, [])) if any(work.roof for work in works) else []
    for text in roofs:
        lab.say(text)
    facts = {"commit": commit(ROOT), "machine": machine.cpu_name(), "threads": options.threads, "roofs": roofs,
             "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "quick": options.quick}
    rows, failed = [], 0
    for number, work in enumerate(works, 1):
        try:
            lab.say(f"{number} of {len(works)}")
            rows += measure(lab, work, facts)
        except Failed as failure:
            failed += not work.optional
            lab.say(f"{work.name}: left out: {str(failure).split('; ')[0]}")
        except KeyboardInterrupt:
            lab.say("stopped; what was measured so far:")
            failed += 1
            break
        if options.json:
            write_rows(options.json, rows)
    print(f"Stoa {'; '.join([facts['commit'] + ', ' + facts['machine'], f'{options.threads} threads', *roofs])}\n")
    if rows:
        print(*filter(None, [table(rows), messages(rows), NOTES]), sep="\n\n")
    if options.quick:
        print("--quick: too few repetitions to mean anything.")
    return 1 if failed else 0


def main():
    options = arguments()
    if options.list:
        print("\n".join(work.name + ("" if work.usual else "  (by name or --all)") for work in all_works()))
        return 0
    try:
        works = select(all_works(), options.names, options.all)
    except KeyError as unknown:
        fail(f"no work begins with `{unknown.args[0]}`; bench/run.sh --list shows them all")
    if options.threads < 1:
        fail(f"--threads is {options.threads}; 1 or more are needed")
    if options.json and not pathlib.Path(options.json).absolute().parent.is_dir():
        fail(f"--json {options.json}: there is no such folder; make it, or name another file")
    if not options.force and not options.check:
        busy = machine.wait_for_quiet()
        if busy:
            fail(f"this machine is busy: {busy}; stop that, or measure all the same with --force")
    if options.quiet_only:
        return 0
    settings, works = prepare(options, works)
    lab = Lab(settings)
    try:
        if options.check:
            return 1 if sum(check(lab, work) for work in works if work.check) else 0
        return measure_all(lab, works, options)
    except Failed as failure:
        fail(str(failure), 1)
    finally:
        Contender.stop_all()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our table has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
