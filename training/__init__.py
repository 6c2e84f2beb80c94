"""The stages of the pipeline, one module each, and what they share.

Importing the package limits the numeric libraries to one thread: with more, sums are added up in another order, and the
same inputs would train other bytes on a machine with another number of cores. On x86-64 they use the instructions of
Haswell (2013) on newer processors too, because a library that picks its code by the processor rounds otherwise on each.
"""

import os

import common  # noqa: F401 - an interrupt is one line


def _has_avx2() -> bool:
    """Whether this is Linux on an x86-64 processor of Haswell's generation or later."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - every stage waits for this import
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return {"avx2", "fma"} <= set(flags.split())


for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
if _has_avx2():
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"
    os.environ["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_ICL AVX512_SPR"
