"""Kernels compiled ahead, with the wheel: one library for both dtypes and some levels of processor, loaded at once.

`python -m nmf_xp.arrays.kernels.ahead` makes it beside this file, for this processor. It needs numba and a C compiler
(`CC` in the environment). numba's code is taken before it is bound to a process, and linked with `library.c`; the
library asks for numba no more.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays.kernels import compiling

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
LIBRARY = HERE / "_compiled.abi3.so"
DTYPES = {"d": "float64", "f": "float32"}
INDICES = {"i": "int32", "l": "int64"}


class Level(NamedTuple):
    """A level of processor: LLVM's name of one that has no more, and what it must have."""

    cpu: str
    needs: tuple[str, ...]
    tuning: str = ""  # what else LLVM is told


WIDE = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
LEVELS = {
    "x86_64": {
        "x86-64-v2": Level("nehalem", ("sse4.2", "popcnt")),
        "x86-64-v3": Level("haswell", ("avx2", "fma", "bmi2")),
        "x86-64-v4": Level("skylake-avx512", ("avx2", "fma", "bmi2", *WIDE), "-prefer-256-bit"),
    },
    "aarch64": {"armv8-a": Level("generic", ())},
}
"""By machine, from the least. `library.c` asks the processor for them by their number here."""


class Variant(NamedTuple):
    """One function of a kernel: a choice of what `compiling.entry` leaves open. Empty where nothing is."""

    kernel: str
    dtype: str
    integer: str

    @property
    def symbol(self) -> str:
        """Its name in the library, but for the level."""
        return f"{self.kernel.replace('.', '_')}_{self.dtype}{self.integer}"


def main() -> None:
    """Do what the command line asks for."""
    os.environ["NMF_XP_KERNELS"] = "numba"
    parser = argparse.ArgumentParser(description="Compile the kernels ahead.")
    parser.add_argument("--out", type=Path, default=LIBRARY, help="the library to write; beside the kernels by default")
    parser.add_argument("--levels", nargs="+", choices=levels(), help="by default the highest of this processor")
    parser.add_argument("--object", nargs=2, metavar=("LEVEL", "DTYPE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for file in compiling.FILES:
        importlib.import_module(f"nmf_xp.arrays.kernels.{file}")
    if asked.object:
        asked.out.write_bytes(_object(*asked.object))
    else:
        build(asked.out, asked.levels or [_own_level()])


def levels() -> dict[str, Level]:
    """Those of this kind of machine, from the least; none where it is not known."""
    return LEVELS.get({"arm64": "aarch64"}.get(platform.machine(), platform.machine()), {})


def build(out: Path, wanted: list[str]) -> None:
    """Write the library for these levels."""
    names = [name for name in levels() if name in wanted]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        room = Path(folder)
        objects = [(name, dtype, room / f"{name}-{dtype}.o") for name in names for dtype in DTYPES]
        list(pool.map(lambda job: _begin(*job), objects))
        (room / "kernels.h").write_text(_header(names))
        compiler = shlex.split(os.environ.get("CC", "cc"))
        include = [f"-I{path}" for path in (room, sysconfig.get_path("include"))]
        options = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", *include]
        if sys.platform == "darwin":
            options += ["-undefined", "dynamic_lookup"]  # the interpreter's names
        made = out.with_name(f"{out.name}.{os.getpid()}")  # so that no process reads one that is half there
        parts = [str(path) for path in (HERE / "library.c", *(path for *_, path in objects))]
        try:
            subprocess.run([*compiler, *options, *parts, "-o", str(made), "-lm"], check=True)
            made.replace(out)
        finally:
            made.unlink(missing_ok=True)


def _begin(level: str, dtype: str, out: Path) -> None:
    """Make an object in a process of its own, since numba compiles for one processor a process."""
    settings = {
        "NUMBA_CPU_NAME": levels()[level].cpu,
        "NUMBA_CPU_FEATURES": levels()[level].tuning,
        "NUMBA_DISABLE_INTEL_SVML": "1",
        "NUMBA_CACHE_DIR": f"{out}.cache",  # what is found compiled has no text to link
    }
    command = [sys.executable, "-m", "nmf_xp.arrays.kernels.ahead", "--object", level, dtype, "--out", str(out)]
    subprocess.run(command, env=os.environ | settings, check=True)


def _object(level: str, dtype: str) -> bytes:
    """Machine code of all functions for a dtype; those for no dtype go with float64."""
    llvm = importlib.import_module("llvmlite.binding")
    own = levels()[level]
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=own.cpu, features=own.tuning, opt=3, reloc="pic", codemodel="default")
    whole: Any = llvm.parse_assembly("")
    kept = set()
    for variant in _variants():
        if (variant.dtype or "d") != dtype:
            continue
        text, name = _text(variant)
        module, symbol = llvm.parse_assembly(text), f"{variant.symbol}_{_tag(level)}"
        module.get_function(name).name = symbol
        kept.add(symbol)
        whole.link_in(module)
    for function in whole.functions:
        if not function.is_declaration:
            if function.name in kept:
                function.visibility = "hidden"
            else:
                function.linkage = "internal"
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()  # how Python would call them, and messages of errors
    passes.run(whole, builder)
    return machine.emit_object(whole)


def _variants() -> Iterator[Variant]:
    for name, entry in compiling.entries.items():
        dtypes = list(DTYPES) if "x" in entry.takes else [""]
        indices = list(INDICES) if "i1" in entry.takes else [""]
        for dtype, index in itertools.product(dtypes, indices):
            yield Variant(name, dtype, index)


def _text(variant: Variant) -> tuple[str, str]:
    """The LLVM assembly of a function, and its name there."""
    kernel, takes, _ = compiling.entries[variant.kernel]
    types = tuple(_types(takes, variant))
    kernel.compile(types)  # type: ignore[attr-defined]
    made = kernel.overloads[types]  # type: ignore[attr-defined]
    return made.library.get_llvm_str(), made.fndesc.llvm_func_name


def _types(takes: str, variant: Variant) -> tuple[Any, ...]:
    """Numba's types of the arguments."""
    types = importlib.import_module("numba").types
    open_: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|\w+", takes):
        if token == "(":
            open_.append([])
        elif token == ")":
            inner = types.Tuple(open_.pop())
            open_[-1].append(inner)
        else:
            open_[-1].append(_type(token, variant, types))
    return tuple(open_[0])


def _type(token: str, variant: Variant, types: Any) -> Any:
    kinds = {
        "x": DTYPES.get(variant.dtype),
        "i": INDICES.get(variant.integer),
        "f": "float64",
        "b": "boolean",
        "n": "int64",
    }
    number = getattr(types, str(kinds[token[0]]))
    if len(token) == 1:
        return number
    return types.Array(number, int(token[1]), "A" if token.endswith("s") else "C")


def _header(names: list[str]) -> str:
    """What `library.c` includes: the kernels, their functions, and the levels."""
    lines: list[str] = []
    table: list[str] = []
    kernels: list[str] = []
    for kernel, variants in itertools.groupby(_variants(), lambda variant: variant.kernel):
        _, takes, gives = compiling.entries[kernel]
        first = len(table)
        for variant in variants:
            for name in names:
                lines += _call(variant, f"{variant.symbol}_{_tag(name)}", takes)
            calls = ", ".join(f"call_{variant.symbol}_{_tag(name)}" for name in names)
            table.append(f"    {{{_char(variant.dtype)}, {_char(variant.integer)}, {{{calls}}}}},")
        given = len(gives.split(",")) if gives else 0
        kernels.append(f'    {{"{kernel}", "{re.sub("[, ]", "", takes)}", {given}, {first}, {len(table) - first}}},')
    lines += ["static const Variant variants[] = {", *table, "};", "static const Kernel kernels[] = {", *kernels, "};"]
    quoted = ", ".join(f'"{name}"' for name in names)
    lines += [f"enum {{ KERNELS = {len(kernels)}, LEVELS = {len(names)} }};"]
    lines += [f"static const char *const levels[] = {{{quoted}}};", f'#define SOURCE "{compiling.source()}"']
    lines += [f"static const int least[] = {{{', '.join(str(list(levels()).index(name)) for name in names)}}};"]
    return "\n".join([*lines, ""])


def _call(variant: Variant, symbol: str, takes: str) -> list[str]:
    """The declaration of a function in C, and how it is called."""
    numbers = {"x": "float" if variant.dtype == "f" else "double", "f": "double", "n": "int64_t", "b": "uint8_t"}
    types, arguments = [], []
    for i, token in enumerate(re.findall(r"\w+", takes)):
        if len(token) > 1:
            types.append(f"T{token[1]}")
            arguments.append(f"A{token[1]}(s[{i}])")
        else:
            field = "f" if token == "x" and variant.dtype == "d" else token
            types.append(numbers[token])
            arguments.append(f"s[{i}].{field}")
    return [
        f"int {symbol}(void *, void **, {', '.join(types)});",
        f"static int call_{symbol}(Slot *s, Given *given) {{",
        "    void *error;",
        f"    return {symbol}(given, &error, {', '.join(arguments)});",
        "}",
    ]


def _char(letter: str) -> str:
    return f"'{letter}'" if letter else "0"


def _tag(level: str) -> str:
    return level.replace("-", "_")


def _own_level() -> str:
    """The highest of this processor."""
    has = importlib.import_module("llvmlite.binding").get_host_cpu_features()
    return [name for name, level in levels().items() if all(has.get(need) for need in level.needs)][-1]


if __name__ == "__main__":
    main()
