"""A plan as plain data: what `policysmith show` prints and diagrams draw."""

from __future__ import annotations

from typing import Any

from policysmith.graph.plan import NodePlan, Plan, TensorSpec
from policysmith.transform.assembly import assembly

__all__ = ["summarize"]


def summarize(plan: Plan, model: str, batch: int = 1) -> dict[str, Any]:
    """Inputs, components and totals, for one row; under `totals.batch` what grows with the rows, for `batch` of them.

    FLOPs are 2 × multiply-adds of a forward pass. Activations are all that its operations write, in the plan's
    precision: about what training keeps for the backward pass, and far more than inference holds at a time.
    """
    nodes = [_node(node) for node in plan.nodes]
    own = [node.measure for node in plan.nodes if node.spec.use is None]
    row = {
        "flops": sum(node.measure.flops for node in plan.nodes),
        "activation_bytes": sum(node.measure.activation_bytes for node in plan.nodes),
        "state_bytes": sum(node.state_bytes for node in plan.nodes),
    }
    return {
        "model": model,
        "inputs": [{"name": name, **_tensor(spec)} for name, spec in plan.inputs.items()],
        "nodes": nodes,
        "outputs": [node.spec.out_keys[0] for node in plan.nodes if node.role],
        "totals": {
            "parameters": plan.parameter_count,
            "trainable": sum(node["trainable"] for node in nodes if node["shares"] is None),
            "buffers": sum(measure.buffers for measure in own),
            "parameter_bytes": sum(measure.parameter_bytes for measure in own),
            "buffer_bytes": sum(measure.buffer_bytes for measure in own),
            **row,
            "batch": {"rows": batch, **{name: batch * count for name, count in row.items()}},
        },
    }


def _node(node: NodePlan) -> dict[str, Any]:
    measure = node.measure
    outputs = [_tensor(spec) for spec in measure.outputs]
    single = len(outputs) == 1
    return {
        "name": node.name,
        "type": node.part.type,
        "inputs": list(node.sources),
        "outputs": list(node.spec.out_keys),
        "shape": outputs[0]["shape"] if single else [o["shape"] for o in outputs],
        "dtype": outputs[0]["dtype"] if single else [o["dtype"] for o in outputs],
        "parameters": measure.parameters,
        "trainable": node.trainable,
        "buffers": measure.buffers,
        "flops": measure.flops,
        "role": node.role,
        "state_bytes": node.state_bytes,
        "shares": node.spec.use,
        "assembly": assembly(node.part),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch.")}
