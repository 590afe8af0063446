"""A plan as plain data: what `policysmith show` prints and diagrams draw."""

from __future__ import annotations

from typing import Any

from policysmith.graph.plan import NodePlan, Plan, TensorSpec
from policysmith.transform.assembly import assembly

__all__ = ["summarize"]


def summarize(plan: Plan, model: str) -> dict[str, Any]:
    """Inputs, components and totals. FLOPs are 2 × multiply-adds for one row; bytes are for one row too."""
    nodes = [_node(node) for node in plan.nodes]
    own = [node.measure for node in plan.nodes if node.spec.use is None]
    return {
        "model": model,
        "inputs": [{"name": name, **_tensor(spec)} for name, spec in plan.inputs.items()],
        "nodes": nodes,
        "outputs": [node.spec.out_keys[0] for node in plan.nodes if node.role],
        "totals": {
            "parameters": plan.parameter_count,
            "trainable": sum(node["trainable"] for node in nodes if node["shares"] is None),
            "buffers": sum(measure.buffers for measure in own),
            "flops": sum(node.measure.flops for node in plan.nodes),
            "parameter_bytes": sum(measure.parameter_bytes for measure in own),
            "buffer_bytes": sum(measure.buffer_bytes for measure in own),
            "activation_bytes": sum(node.measure.activation_bytes for node in plan.nodes),
            "state_bytes": sum(node.state_bytes for node in plan.nodes),
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
        "trainable": 0 if node.spec.freeze else measure.parameters,
        "buffers": measure.buffers,
        "flops": measure.flops,
        "role": node.role,
        "state_bytes": node.state_bytes,
        "shares": node.spec.use,
        "assembly": assembly(node.part),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch.")}
