"""The stages of the pipeline, one module each, and what they share.

Importing the package limits the numeric libraries to one thread: with more, sums are added up in another
order, and the same inputs would train other bytes on a machine with another number of cores.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
