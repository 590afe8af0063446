"""Workers as processes: started once, watched by what they are and not by their number alone, and ended whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policysmith.skills.runs.run_files import (
    RunProgress,
    WorkerRecord,
    last_words,
    read_progress,
    read_result,
)
from policysmith.skills.scheduling.launcher import Job
from policysmith.skills.scheduling.local import GATE, LocalLauncher
from policysmith.skills.scheduling.processes import families, is_alive, machine_memory, start_of
from policysmith.skills.scheduling.settings import Resources

from .scheduling import until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are watched through /proc")


@pytest.fixture
def launcher():
    made = LocalLauncher(grace=0.3)
    yield made
    for worker in made._workers.values():
        os.kill(worker.record.pid, signal.SIGKILL)
    made.close()


def job(folder, script, skill="a", **options):
    return Job(skill, folder, ("/bin/sh", "-c", script), **options)


def end(launcher):
    return until(lambda: launcher.wait(5.0))


def test_a_worker_is_known_before_it_runs(tmp_path, launcher):
    launcher.start(job(tmp_path, f"cat {tmp_path}/worker.json >&2; exit 4", attempt=3))
    (ended,) = end(launcher)
    assert (ended.skill, ended.status, ended.reason) == ("a", 4, "")
    seen = json.loads(last_words(tmp_path))
    assert seen["attempt"] == 3 and WorkerRecord.read(tmp_path) == WorkerRecord(**seen)


def test_a_worker_whose_scheduler_dies_before_the_word_go_never_runs(tmp_path):
    command = [*GATE, "touch", str(tmp_path / "ran")]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0
    assert not (tmp_path / "ran").exists()


def test_a_worker_has_a_session_and_threads_of_its_own(tmp_path):
    launcher = LocalLauncher(threads=3)
    launcher.start(job(tmp_path, "echo $OMP_NUM_THREADS $(cut -d ' ' -f 6 /proc/$$/stat) $$"))
    end(launcher)
    threads, session, pid = last_words(tmp_path).split()
    assert threads == "3" and session == pid != str(os.getsid(0))


def test_what_it_says_is_kept_from_all_attempts(tmp_path, launcher):
    for attempt in (1, 2):
        launcher.start(job(tmp_path, f"echo attempt {attempt} >&2", attempt=attempt))
        end(launcher)
    assert (tmp_path / "worker.log").read_text() == "attempt 1\nattempt 2\n"


def test_one_that_is_asked_saves_and_one_that_does_not_listen_is_killed(tmp_path, launcher):
    polite = "trap 'exit 75' TERM; echo up; while :; do sleep 0.02; done"
    launcher.start(job(tmp_path, polite))
    until(lambda: last_words(tmp_path) == "up")
    launcher.stop("a")
    assert end(launcher)[0].status == 75
    launcher.start(job(tmp_path, "trap '' TERM; echo deaf; while :; do sleep 0.02; done"))
    until(lambda: last_words(tmp_path) == "deaf")
    launcher.stop("a")
    assert end(launcher)[0].status == -signal.SIGKILL


def test_one_that_takes_too_long_is_asked_to_stop_and_told_why(tmp_path, launcher):
    launcher.start(job(tmp_path, "exec sleep 30", seconds=0.1))
    (ended,) = end(launcher)
    assert ended.status == -signal.SIGTERM and ended.reason == "took longer than 0 s"


def test_one_that_tells_nothing_for_too_long_is_asked_to_stop_and_told_why(tmp_path, launcher):
    """A single call that computes for hours hears no signal."""
    launcher.start(job(tmp_path, "trap '' TERM; while true; do :; done", silence=0.1))
    (ended,) = end(launcher)
    assert ended.status == -signal.SIGKILL and ended.reason == "told nothing for 0 s: something in it hangs"


def test_one_that_tells_how_it_goes_is_let_alone(tmp_path, launcher):
    line = 'for i in 1 2 3 4 5; do echo "{}" >> progress.jsonl; sleep 0.3; done'
    launcher.start(job(tmp_path, f"cd {tmp_path}; {line}", silence=1.0))
    assert end(launcher)[0].status == 0


def test_without_a_limit_of_its_own_half_of_the_machines_memory_is_one(tmp_path, launcher):
    assert machine_memory() // 3 < launcher.most_memory < machine_memory()
    launcher.most_memory = 100_000_000
    launcher.start(job(tmp_path, f"exec {sys.executable} -c \"x = b'x' * 200_000_000; import time; time.sleep(30)\""))
    (ended,) = end(launcher)
    assert ended.status == -signal.SIGKILL and ended.reason.endswith("MB of memory, allowed are 100 MB")


def test_memory_counts_what_its_children_hold_in_sessions_of_their_own(tmp_path, launcher):
    hold = f"{sys.executable} -c \"x = b'x' * 200_000_000; import time; time.sleep(30)\""
    launcher.start(job(tmp_path, f"setsid {hold} & wait", resources=Resources(memory="100MB")))
    pid = WorkerRecord.read(tmp_path).pid
    family = until(lambda: len(found := families([pid])[pid]) > 1 and found)
    (ended,) = end(launcher)
    assert ended.status == -signal.SIGKILL and ended.reason.endswith("MB of memory, allowed are 100 MB")
    until(lambda: not any(is_alive(process.pid, process.start) for process in family))


def test_what_a_worker_leaves_running_ends_with_it(tmp_path, launcher):
    launcher.start(job(tmp_path, "sleep 30 & echo $!; exit 0"))
    assert end(launcher)[0].status == 0
    until(lambda: start_of(int(last_words(tmp_path))) is None)


def test_a_living_worker_is_taken_over_and_its_end_is_seen(tmp_path, launcher):
    launcher.start(job(tmp_path, "sleep 0.3"))
    other = LocalLauncher()
    assert other.adopt(job(tmp_path, ""))
    (ended,) = other.wait(5.0)
    assert (ended.skill, ended.status) == ("a", None)
    assert end(launcher)[0].status == 0
    assert not other.adopt(job(tmp_path, ""))


@pytest.mark.parametrize("change", [{"start": 1}, {"host": "elsewhere"}, {"pid": 2**22 + 1}])
def test_another_process_is_never_taken_for_the_worker(tmp_path, launcher, change):
    record = {"pid": os.getpid(), "start": start_of(os.getpid()), "attempt": 1}
    WorkerRecord(**record).write(tmp_path)
    assert launcher.adopt(job(tmp_path, ""))
    launcher._workers.clear()
    WorkerRecord(**{**record, **change}).write(tmp_path)
    assert not launcher.adopt(job(tmp_path, ""))


def test_a_folder_never_has_two_workers(tmp_path, launcher):
    first = LocalLauncher()
    first.start(job(tmp_path, "exec sleep 30"))
    record = WorkerRecord.read(tmp_path)
    launcher.start(job(tmp_path, "exit 0"))
    assert not is_alive(record.pid, record.start)
    assert end(launcher)[0].status == 0
    assert first.wait(5.0)[0].status == -signal.SIGTERM


def test_waiting_ends_when_nothing_happens(launcher):
    before = time.process_time()
    assert launcher.wait(0.3) == []
    assert time.process_time() - before < 0.2  # it slept


def test_what_cannot_be_started_is_said_by_its_status(tmp_path, launcher):
    launcher.start(Job("a", tmp_path, ("/no/such/program",)))
    assert end(launcher)[0].status == 127 and "/no/such/program" in last_words(tmp_path)
    with pytest.raises(OSError):
        launcher.start(job(tmp_path / "nowhere", "exit 0"))


class TestRunFiles:
    def test_a_torn_last_line_of_progress_is_passed_over(self, tmp_path):
        assert read_progress(tmp_path) == RunProgress()
        (tmp_path / "progress.jsonl").write_text('{"step": 4, "success_rate": 0.5, "return": 1.0}\n{"step": 5, "suc')
        assert read_progress(tmp_path) == RunProgress(4, 0.5, 1.0)

    def test_a_result_says_how_it_ended_or_is_refused(self, tmp_path):
        assert read_result(tmp_path) is None
        (tmp_path / "result.json").write_text('{"status": "solved", "steps": 3, "seconds": 1.5, "success_rate": 1.0}')
        assert read_result(tmp_path).steps == 3
        for text in ("{", "[]", '{"status": "fine"}'):
            (tmp_path / "result.json").write_text(text)
            with pytest.raises(ValueError, match=r"result\.json: (cannot be read|its status must be one of solved)"):
                read_result(tmp_path)

    def test_the_last_words_are_those_of_the_end_of_a_long_log(self, tmp_path):
        (tmp_path / "worker.log").write_text("x" * 100_000 + "\nthe end\n\n")
        assert last_words(tmp_path) == "the end" and last_words(tmp_path / "none") == ""

    def test_no_record_is_made_of_a_torn_file(self, tmp_path):
        (tmp_path / "worker.json").write_text('{"pid": 3')
        assert WorkerRecord.read(tmp_path) is None
