"""`python -m benchmarks [names...]`: run benchmarks, print their table; a run of all writes RESULTS.md.

Exits with 1 when a bar does not hold, or when a benchmark fails; the others run all the same.
"""

import sys
import traceback
from pathlib import Path

import torch

from benchmarks import (
    bench_components,
    bench_distributed,
    bench_finite,
    bench_graph_yaml,
    bench_micro,
    bench_moe,
    bench_offline,
    bench_ppo,
    bench_skills,
    bench_skills_scale,
    bench_store,
    bench_tower,
    bench_transformer,
    bench_wrappers,
)
from benchmarks.harness import Row, machine, table

BENCHMARKS = {
    run.__name__: run
    for run in (
        bench_micro.acting,
        bench_micro.forward,
        bench_micro.forward_backward,
        bench_micro.per_node,
        bench_micro.build_1000,
        bench_micro.import_time,
        bench_components.components_compiled,
        bench_components.components_tensordict,
        bench_tower.tower_creation,
        bench_tower.tower_passes,
        bench_tower.tower_sampling,
        bench_tower.tower_memory,
        bench_transformer.acting_with_cache,
        bench_transformer.cache_bytes,
        bench_transformer.block_passes,
        bench_moe.moe_training,
        bench_moe.moe_acting,
        bench_moe.moe_grouped,
        bench_wrappers.wrapped_training,
        bench_wrappers.wrapped_acting,
        bench_graph_yaml.graph_yaml_build,
        bench_graph_yaml.graph_yaml_forward,
        bench_store.store_lookup,
        bench_offline.offline_cloning,
        bench_distributed.distributed_cloning,
        bench_finite.finite_guards,
        bench_skills.skill_experts,
        bench_skills_scale.skills_scale,
        bench_ppo.ppo_cleanrl,
        bench_ppo.ppo_sb3,
    )
}
RESULTS = Path(__file__).with_name("RESULTS.md")
REPORT = """# Speed

Written by `make bench`. {held} of {bars} bars hold.

{machine}

{table}

How to read it: *ours* and *peer* are medians of samples taken alternately (in one process, but for SB3, which has its
own venv, and for imports). *Ratio* is the median of the paired ratios ours / peer, *95 %* the interval of that
median by order statistics (for under six pairs their whole range). A bar holds when the ratio meets the target; a bar
near 1 (0.9 to 1.1) holds when the interval reaches it. For returns, ours and peer are mean ± standard deviation over
seeds, and the interval is that of the ratio of the means. Rows without a target inform. The peers are in `peers/`:
acting, forward and training compare with CleanRL's agent and its `torch.distributions.Categorical`.
"""


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    rows: list[Row] = []
    failed: list[str] = []
    for name in names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name]()
        except Exception:  # minutes of measuring are not thrown away for one benchmark
            traceback.print_exc()
            failed.append(name)
    print(table(rows))
    bars = [row.holds for row in rows if row.holds is not None]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    elif not names:
        report = REPORT.format(held=sum(bars), bars=len(bars), machine=machine(), table=table(rows))
        RESULTS.write_text(report, encoding="utf-8")
    return 0 if all(bars) and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
