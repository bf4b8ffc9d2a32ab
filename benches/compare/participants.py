"""Programs that measure themselves on request: quantd's benches and the peers, one process each, all pinned alike.

Only the one that is asked runs; the others are stopped. Their threads would otherwise wait for work in loops, for
tens of milliseconds, on the processors of the one that is measured."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = Path(os.environ.get("COMPARE_DIR", ROOT / "target/compare")).resolve()
# Longest wait for an answer: the largest case of the slowest peer, made anew.
PATIENCE_SECONDS = 180


def benches(names):
    """Builds these benches of quantd and gives their paths by name."""
    command = ["cargo", "bench", "--no-run", "--message-format=json", *(f"--bench={name}" for name in names)]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        sys.exit("quantd's benches do not build")
    found = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] in names:
            found[message["target"]["name"]] = message["executable"]
    return found


def peers():
    """The command of each peer, for those that `setup` made."""
    python = FOLDER / "venv/bin/python"
    mkl = next(FOLDER.glob("venv-mkl/lib/libmkl_rt.so*"), FOLDER / "venv-mkl/lib/libmkl_rt.so")
    commands = {
        "mkl": [FOLDER / "mkl_peer", mkl],
        "onednn-2": [FOLDER / "onednn2_peer"],
        "onednn-3": [FOLDER / "onednn3_peer"],
        **{name: [python, HERE / f"peers/{name}_peer.py"] for name in ("onnxruntime", "torch", "numpy")},
    }
    return {name: [str(part) for part in command] for name, command in commands.items()}


class Participant:
    """One process, started when it is first asked."""

    def __init__(self, name, command, threads, seconds):
        self.name, self.command, self.threads, self.seconds = name, command, threads, seconds
        self.version, self.reason, self.process = None, None, None

    def start(self):
        cpus = sorted(os.sched_getaffinity(0))[: self.threads]
        if len(cpus) < self.threads:
            return self.fail("the machine has too few processors")
        if not Path(self.command[0]).exists():
            return self.fail("not installed: run benches/compare/setup")
        count = str(self.threads)
        environment = os.environ | {
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "MKL_THREADING_LAYER": "GNU",
        }
        if self.name == "mkl":
            environment["LD_LIBRARY_PATH"] = str(Path(self.command[1]).parent)
        pinned = ["taskset", "--cpu-list", ",".join(map(str, cpus)), *self.command]
        arguments = ["--threads", count, "--seconds", str(self.seconds)]
        try:
            self.process = subprocess.Popen(
                pinned + arguments, env=environment, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            return self.fail(str(error))
        # A stopped process would outlive this one.
        atexit.register(self.stop)
        self.complaints = []
        threading.Thread(target=self.listen, args=(self.process,), daemon=True).start()
        self.version = self.line()
        return bool(self.version)

    def listen(self, process):
        for line in process.stderr:
            self.complaints = [*self.complaints[-4:], line.strip()]

    def fail(self, reason):
        self.reason = reason
        print(f"left out: {self.name}, {self.threads}t: {reason}", flush=True)
        return False

    def line(self):
        """The next line of the process, or None when it has ended or says nothing."""
        watchdog = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        return line.strip() or None

    def ask(self, op, shape):
        """Seconds of a call, or None and why."""
        if self.reason:
            return None, self.reason
        if not self.process and not self.start():
            if not self.reason:
                self.stop()
                self.fail("did not start: " + (self.complaints or ["no word"])[-1])
            return None, self.reason
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(f"{op} {shape}\n")
            self.process.stdin.flush()
            answer = self.line()
            self.process.send_signal(signal.SIGSTOP)
        except BrokenPipeError:
            answer = None
        if answer is None:
            # It may do better with another case: the next request starts it anew.
            self.stop()
            return None, "died or fell silent"
        if answer.startswith("!"):
            return None, answer[1:].strip()
        return float(answer), None

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
