"""A worker that trains nothing: `python fake_worker.py <run_folder>`. It keeps a worker's contract, and loads no torch.

`training` in its config says how it behaves: how many steps of what length, and what goes wrong at which of them.
"""

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

import yaml


def main(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    says = config["training"]
    asked = []
    if says.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    policies = next(folder.glob("*_policies"))
    step = max(int(path.name) for path in policies.iterdir() if path.name.isdecimal())
    tell(says, "start", config["skill"], step)
    ballast = b"x" * int(says.get("hold", 0) * 1e6)
    while step < says["total_steps"]:
        if asked:
            save(folder, policies, step, config["num_experts"])
            tell(says, "saved", config["skill"], step)
            return 75
        step += 1
        time.sleep(says.get("pace", 0.0))
        if step % 5 == 0:
            save(folder, policies, step, config["num_experts"])
        with (folder / "progress.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": step, "seconds": 0.1, "success_rate": 0.5, "return": 1.5}) + "\n")
        if step == says.get("kill_at") and once(folder):
            os.kill(os.getpid(), signal.SIGKILL)
        if says.get("fail_at") in (step, -1):
            print("the reward is not a number", file=sys.stderr)
            return 3
    save(folder, policies, step, config["num_experts"])
    solved = "budget" if says.get("poor") else "solved"
    result = {"status": solved, "steps": step, "seconds": 0.1, "success_rate": 0.97, "scores": {config["skill"]: 0.97}}
    fresh = folder / ".result.json"
    fresh.write_text(json.dumps(result))
    tell(says, "end", config["skill"], step)
    fresh.rename(folder / "result.json")
    return len(ballast) * 0


def once(folder):
    """True the first time."""
    mark = folder / "once"
    first = not mark.exists()
    mark.touch()
    return first


def tell(says, event, skill, step):
    line = {"event": event, "skill": skill, "step": step, "pid": os.getpid(), "at": time.monotonic()}
    line["threads"] = os.environ["OMP_NUM_THREADS"]
    with Path(says["events"]).open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def save(folder, policies, step, experts):
    """A checkpoint: experts that the run started from stay as they were, the new one depends on the step."""
    seed, about = read(policies / "0")
    tensors = dict(seed)
    for local in range(experts):
        for role in ("actor", "critic"):
            tensors.setdefault(f"{role}_networks_{local}.layers_0.weight", struct.pack("<4f", step, local, 1, 2))
    at, header = 0, {}
    for name, data in tensors.items():
        header[name] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = json.dumps(header).encode()
    frames = {**{str(local): step for local in range(experts)}, **about["frames"]}
    fresh = policies / f".{step}"
    fresh.mkdir(exist_ok=True)
    (fresh / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(tensors.values()))
    (fresh / "checkpoint.json").write_text(json.dumps({"format": 1, "frames": frames, "versions": {}}))
    if not (policies / str(step)).exists():
        fresh.rename(policies / str(step))


def read(folder):
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {n: data[8 + size + a : 8 + size + b] for n, d in header.items() for a, b in [d["data_offsets"]]}
    return tensors, json.loads((folder / "checkpoint.json").read_text())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
