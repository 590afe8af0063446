"""Views around components that check, regularise, watch, freeze, adapt or remember; importing this registers them."""

from policysmith.wrappers.frozen import Frozen
from policysmith.wrappers.lora import LoRA
from policysmith.wrappers.managers import MemoryManager
from policysmith.wrappers.monitoring import WeightMonitoringModule
from policysmith.wrappers.regularized import RegularizedModule
from policysmith.wrappers.safe import SafeModule
from policysmith.wrappers.stateful_module import StatefulModule
from policysmith.wrappers.wrapper import Attachment, Wrapper, attach_all, metrics_of

__all__ = [
    "Attachment",
    "Frozen",
    "LoRA",
    "MemoryManager",
    "RegularizedModule",
    "SafeModule",
    "StatefulModule",
    "WeightMonitoringModule",
    "Wrapper",
    "attach_all",
    "metrics_of",
]
