"""Past the first wall: Python as hostile as it likes, in the worker, and what the system still refuses to it."""

import os
from pathlib import Path

import pytest

from policysmith.errors import SkillError
from policysmith.skills.modules import process as starting
from policysmith.skills.modules.module_file import parse_skill_module
from policysmith.skills.modules.process import SkillProcess

from ..modules import plan_of

# The worker as it is, but for the translation: what is asked of it is Python, and is executed.
HOSTILE = """
import sys; sys.path.insert(0, sys.argv[1])
import ctypes, mmap, os, resource, signal, socket, subprocess, threading
import numpy
from policysmith.skills.modules import worker

class Hostile:
    def __init__(self, source, filename): pass
    def execute(self): pass
    def call(self, code, features):
        names = {**globals(), **features, "libc": ctypes.CDLL(None, use_errno=True)}
        exec(code, names)
        return names.get("found")
    def explained(self, error):
        return {"error": f"{type(error).__name__}: {error}", "place": ""}

def call(number, *arguments):
    if ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

worker.Answers = Hostile
worker.main()
"""
X86 = os.uname().machine == "x86_64"
ATTEMPTS = {
    "run a program": ("seccomp", "os.execv('/bin/true', ['true'])"),
    "run a program by its descriptor": ("seccomp", "call(322, 0, 0, 0, 0, 0)"),
    "fork": ("seccomp", "os.fork()"),
    "spawn": ("seccomp", "os.posix_spawn('/bin/true', ['true'], {})"),
    "subprocess": ("seccomp", "subprocess.run(['/bin/true'])"),
    "a shell": ("seccomp", "if os.system('true'): raise OSError('no shell')"),
    "open a TCP socket": ("seccomp", "socket.socket()"),
    "open a UDP socket": ("seccomp", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"),
    "open a Unix socket": ("seccomp", "socket.socket(socket.AF_UNIX)"),
    "open a raw socket": ("seccomp", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "write a file": ("seccomp", "open(folder + '/new', 'w')"),
    "append to a file": ("seccomp", "open(file, 'a')"),
    "create a file": ("seccomp", "os.open(folder + '/new', os.O_CREAT | os.O_RDONLY)"),
    "cut a file": ("seccomp", "os.truncate(file, 0)"),
    "delete a file": ("seccomp", "os.unlink(file)"),
    "rename a file": ("seccomp", "os.rename(file, file + '2')"),
    "link a file": ("seccomp", "os.link(file, file + '2')"),
    "make a symbolic link": ("seccomp", "os.symlink(file, file + '2')"),
    "make a folder": ("seccomp", "os.mkdir(folder + '/new')"),
    "remove a folder": ("seccomp", "os.rmdir(folder + '/empty')"),
    "change who may read": ("seccomp", "os.chmod(file, 0o777)"),
    "change an owner": ("seccomp", "os.chown(file, 1, 1)"),
    "change times": ("seccomp", "os.utime(file)"),
    "read a file outside": ("landlock", "open(file).read()"),
    "read users": ("landlock", "open('/etc/passwd').read()"),
    "list a folder outside": ("landlock", "os.listdir(folder)"),
    "read another process": ("landlock", "open(f'/proc/{os.getppid()}/environ', 'rb').read()"),
    "write to its own memory": ("landlock", "open('/proc/self/mem', 'rb+')"),
    "end its parent": ("seccomp", "os.kill(os.getppid(), signal.SIGTERM)"),
    "end everything": ("seccomp", "os.kill(-1, signal.SIGTERM)"),
    "look whether a process lives": ("seccomp", "os.kill(os.getppid(), 0)"),
    "hold a process": ("seccomp", "os.pidfd_open(os.getppid())"),
    "trace a process": ("seccomp", "call(101, 16, os.getppid(), 0, 0)"),
    "be traced": ("seccomp", "call(101, 0, 0, 0, 0)"),
    "read another's memory": ("seccomp", "call(310, os.getppid(), 0, 0, 0, 0, 0)"),
    "signal a thread": ("seccomp", "call(200, os.getppid(), 15)"),
    "become somebody": ("seccomp", "os.setuid(0)"),
    "namespaces": ("seccomp", "call(272, 0x10000000)"),
    "mount": ("seccomp", "call(165, 0, 0, 0, 0, 0)"),
    "change the root": ("seccomp", "os.chroot(folder)"),
    "programs in the kernel": ("seccomp", "call(321, 0, 0, 0)"),
    "calls past the filter by a ring": ("seccomp", "call(425, 1, 0)"),
    "calls by other numbers": ("seccomp", "call(0x40000000 + 39)"),
    "a new kind of open": ("seccomp", "call(437, -100, 0, 0, 0)"),
    "a new kind of fork": ("seccomp", "call(435, 0, 0)"),
    "load a library from outside": ("landlock", "ctypes.CDLL(file)"),
    "another's limits": ("seccomp", "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (8, 8))"),
    "raise a limit": ("limits", "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))"),
    "all memory": ("limits", "mmap.mmap(-1, 1 << 40)"),
}
BY_NUMBER = "call("


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "file").write_text("secret")
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(starting, "START", HOSTILE)
        with SkillProcess(parse_skill_module(plan_of(0))) as process:
            yield process, folder
    assert (folder / "file").read_text() == "secret" and len(list(folder.iterdir())) == 2


def run(hostile, code):
    process, folder = hostile
    given = {"folder": str(folder), "file": str(folder / "file")}
    return process._ask({"do": "call", "with": [code, given]}, "hostile code", 20)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_it_is_refused_by_the_system(hostile, attempt):
    wall, code = ATTEMPTS[attempt]
    stands = hostile[0].walls[wall]
    if stands.startswith("no wall"):
        pytest.skip(f"{wall}: {stands}")
    if BY_NUMBER in code and not X86:
        pytest.skip("the numbers of calls are those of x86-64")
    if wall == "limits" and hostile[0].walls["namespaces"].startswith("no wall") and os.geteuid() == 0:
        pytest.skip("root without a namespace of its own raises limits as it likes")
    with pytest.raises(SkillError, match=r"hostile code failed: \w*(Error|error): ?"):
        run(hostile, code)


def test_there_is_no_network(hostile):
    walls = hostile[0].walls
    if walls["namespaces"].startswith("no wall"):
        pytest.skip(f"namespaces: {walls['namespaces']}")
    network = Path(f"/proc/{hostile[0]._process.pid}/net/dev")
    assert {line.split(":")[0].strip() for line in network.read_text().splitlines()[2:]} <= {"lo", "sit0", "tunl0"}


@pytest.mark.parametrize(
    "code",
    [
        "found = []\nthread = threading.Thread(target=found.append, args=(1,))\nthread.start()\nthread.join()\n"
        "found = len(found)",
        "found = float((numpy.ones((300, 300)) @ numpy.ones((300, 300)))[0, 0])",
        "found = len(open('/proc/self/status').read())",
        "import decimal, fractions; found = 1",
        "found = len(mmap.mmap(-1, 1 << 20))",
        "found = os.getpid()",
    ],
)
def test_what_computing_needs_goes_on(hostile, code):
    assert run(hostile, code) > 0


def test_every_wall_is_told():
    with SkillProcess(parse_skill_module(plan_of(0))) as process:
        assert set(process.walls) == {"limits", "landlock", "namespaces", "seccomp"}
        assert all(isinstance(told, str) and told for told in process.walls.values())
