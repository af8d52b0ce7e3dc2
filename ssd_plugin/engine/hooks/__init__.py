"""Hooks: what is checked, reported or changed while a runner runs."""

from ssd_plugin.engine.hooks.channels_last_hook import ChannelsLastHook
from ssd_plugin.engine.hooks.console_hook import ConsoleHook
from ssd_plugin.engine.hooks.data_fault_hook import DataFaultHook
from ssd_plugin.engine.hooks.nonfinite_loss_hook import NonFiniteLossHook
from ssd_plugin.engine.hooks.norm_stats_hook import NormStatsHook
from ssd_plugin.engine.hooks.preemption_hook import PreemptionHook
from ssd_plugin.engine.hooks.prior_hint_hook import PriorHintHook
from ssd_plugin.engine.hooks.runtime_info_hook import DeferredRuntimeInfoHook
from ssd_plugin.engine.hooks.strict_load_hook import StrictLoadHook

__all__ = [
    'ChannelsLastHook',
    'ConsoleHook',
    'DataFaultHook',
    'DeferredRuntimeInfoHook',
    'NonFiniteLossHook',
    'NormStatsHook',
    'PreemptionHook',
    'PriorHintHook',
    'StrictLoadHook',
]
