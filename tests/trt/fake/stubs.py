"""Classes that override every pure virtual function of TensorRT's own, so that a fake overrides only what it is asked.

The functions differ from version to version, so that the classes are made of the headers that are given. A function
that nobody expected to be called ends the process: it is the proof that the adapter calls no other.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLASSES = ("VRuntime", "VCudaEngine", "VExecutionContext", "VEngineInspector")
PURE = re.compile(r"virtual ([^;{}()]+?)\b(\w+)\(([^;{}]*?)\)\s*(const)?\s*noexcept\s*=\s*0\s*;", re.S)


def stub(text: str, name: str) -> str:
    """``Stub<name>`` of the class ``name`` in the text of NvInferImpl.h."""
    body = re.search(rf"^class {name} : public VRoot\s*\{{(.*?)^\}};", text, re.S | re.M)
    if body is None:
        raise SystemExit(f"no class {name} in NvInferImpl.h")
    code = re.sub(r"//[^\n]*", "", body.group(1))
    rows = []
    for result, function, arguments, const in PURE.findall(code):
        types = " ".join(arguments.split())
        rows.append(f"  {result.strip()} {function}({types}) {const} noexcept override {{ std::abort(); }}")
    if len(rows) != code.count("= 0"):
        raise SystemExit(f"{name}: {len(rows)} of {code.count('= 0')} functions were understood")
    return f"class Stub{name[1:]} : public nvinfer1::apiv::{name} {{\n public:\n" + "\n".join(rows) + "\n};\n"


def main(include: Path, out: Path) -> None:
    text = (include / "NvInferImpl.h").read_text(encoding="utf-8")
    classes = "\n".join(stub(text, name) for name in CLASSES)
    out.write_text(f"#include <cstdlib>\nnamespace nvinfer1 {{\n{classes}}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
