"""The formats that an adapter can be configured with, by name."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from proxy.adapters.tool_calls.format import Body, Format
from proxy.adapters.tool_calls.formats import calls, glm, invoke, objects, qwen, special, toolify

# What `auto` knows from what the model writes: formats whose first mark, or what must follow it, is theirs
# alone. Bare JSON and bare lists of calls are not among them; they look like answers. A bare <invoke> is
# Claude's.
_TOLD_APART = (
    qwen.QWEN3_XML,
    qwen.SEED_OSS,
    glm.GLM_XML,
    invoke.DSML,
    replace(invoke.MINIMAX_M2, bare=False),
    invoke.MINIMAX_M3,
    invoke.STEP3,
    special.KIMI_K2,
    special.DEEPSEEK_V3,
    special.DEEPSEEK_V31,
    special.MISTRAL,
    objects.GRANITE,
    objects.MINIMAX_M1,
    calls.GEMMA4,
    calls.LFM2,
    calls.OLMO3,
    invoke.ANTHROPIC_XML,
)
AUTO = Format(name="auto", body=Body.NONE, also=_TOLD_APART, lock=True, special_tokens=True)

KINDS: Mapping[str, Format] = MappingProxyType(
    {
        format.name: format
        for format in (
            AUTO,
            qwen.QWEN3_XML,
            qwen.MIMO_XML,
            qwen.SEED_OSS,
            qwen.HERMES,
            qwen.LONGCAT,
            qwen.ERNIE45,
            qwen.REKA_EDGE,
            qwen.GRANITE_THINKING,
            glm.GLM_XML,
            glm.HY_V3,
            glm.POOLSIDE_V1,
            glm.K2_HORIZON,
            invoke.ANTHROPIC_XML,
            invoke.MINIMAX_M2,
            invoke.MINIMAX_M3,
            invoke.DOTS,
            invoke.MINICPM5_XML,
            invoke.DSML,
            invoke.STEP3,
            toolify.TOOLIFY_XML,
            special.KIMI_K2,
            special.KIMI_K3,
            special.DEEPSEEK_V31,
            special.DEEPSEEK_V3,
            special.MISTRAL,
            special.PLAMO3,
            special.FUNCTIONARY_V31,
            special.FUNCTIONARY_V32,
            special.HARMONY,
            objects.LLAMA3_JSON,
            objects.JSON_BARE,
            objects.XLAM,
            objects.GRANITE,
            objects.MINIMAX_M1,
            objects.JAMBA,
            objects.HUNYUAN_A13B,
            objects.INTERNLM2,
            objects.PHI4MINI,
            objects.FIREFUNCTION,
            objects.APRIEL,
            objects.NEMOTRON_V2_JSON,
            objects.GIGACHAT3,
            objects.APERTUS,
            objects.INKLING,
            objects.COHERE,
            calls.PYTHONIC,
            calls.LLAMA4_PYTHONIC,
            calls.OLMO3,
            calls.LFM2,
            calls.GEMMA4,
            calls.FUNCTIONGEMMA,
        )
    }
)
