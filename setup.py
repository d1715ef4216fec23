"""Compiles the byte path to C with mypyc, where LLMPROXY_COMPILE=1 asks for it.

Everything else about the package is in setup.cfg. The same modules run as they
are where nothing was compiled; `make compile` compiles them in place.
"""

import os

from setuptools import setup

# What runs for each request and each piece of an answer. Cold modules stay interpreted: they
# would only make the build longer. So do msgspec's Structs, which mypyc would make without their options.
BYTE_PATH = {
    "proxy": "clock metrics",
    "proxy/access": "addresses credential quota refusals",
    "proxy/balancers": "affinity_key base load",
    "proxy/health": "blame breaker budget hedge outcome retry window",
    "proxy/limiters": "account bucket concurrency estimate headers limits shapes table verdict",
    "proxy/runtime": "generation keys routes services",
    "proxy/sinks": "outbox",
    "proxy/stores": "key_table pipeline",
    "proxy/upstream": "connection connections endpoint outflow pool watch",
    "proxy/usage": "answer choose ends estimate json_meter sse_meter",
    "proxy/web": "access_line answer attempt auth body cors dispatch downstream errors exchange facts forward"
    " host inbox limits output relay route run trace translate usage",
    "proxy/wire": "chunked common_heads head_memory headers http1 json_bytes",
}


def extensions():
    from mypyc.build import mypycify

    paths = [f"{folder}/{name}.py" for folder, names in BYTE_PATH.items() for name in names.split()]
    # What is not compiled is only read for its types; `make lint` checks it.
    options = ["--follow-imports=silent", "--no-warn-unused-ignores", "--no-warn-unreachable"]
    made = mypycify(
        [*options, *paths], opt_level="2", debug_level="0", multi_file=True, group_name="proxy.byte_path"
    )
    for extension in made:  # the headers of a group with a dot lie in a folder of their own
        extension.include_dirs.append("build/proxy")
        extension.extra_link_args.append("-Wl,-Bsymbolic")  # calls among the modules need no look-up
    return made


setup(ext_modules=extensions() if os.environ.get("LLMPROXY_COMPILE") == "1" else [])
