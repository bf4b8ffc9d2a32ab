"""What the figures were measured on and with."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone

from participants import ROOT

# Those that decide which instructions products and passes use.
FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512vbmi",
         "avx512_bf16", "amx_int8", "asimddp", "i8mm")


def output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def first(pattern, text, default="unknown"):
    found = re.search(pattern, text, re.M)
    return found[1].strip() if found else default


def machine():
    info, lscpu = open("/proc/cpuinfo").read(), output("lscpu")
    have = first(r"^(?:flags|Features)\s*:(.*)$", info, "").split()
    memory = first(r"^MemTotal:\s*(\d+)", open("/proc/meminfo").read(), "0")
    caches = ", ".join(f"{name} {first(rf'^{name} cache:(.*)$', lscpu)}" for name in ("L1d", "L2", "L3"))
    model = re.sub(r"\((R|TM)\)", "", first(r"^model name\s*:(.*)$", info, platform.machine()))
    family, number = first(r"^cpu family\s*:(.*)$", info), first(r"^model\s*:(.*)$", info)
    tiles = " with AMX" * ("amx_int8" in have)
    name = f"{model} (family {family}, model {number}){tiles}"
    return {
        "name": name,
        # Of its page.
        "slug": "-".join(re.findall(r"[a-z0-9]+", re.sub(r"family|model|with", "", name.lower()))),
        "processor": f"{name}, {len(os.sched_getaffinity(0))} cores in use",
        "hypervisor": first(r"^Hypervisor vendor:(.*)$", lscpu, "none"),
        "caches": caches,
        "memory": f"{int(memory) / 2**20:.0f} GiB",
        "flags": " ".join(flag for flag in FLAGS if flag in have),
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": first(r"^rustc (\S+)", output("rustc", "--version")),
        "python": platform.python_version(),
    }


def commit():
    head = output("git", "rev-parse", "--short", "HEAD")
    return head + ("+" if output("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock") else "")


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
