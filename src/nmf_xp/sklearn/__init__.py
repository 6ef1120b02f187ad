"""scikit-learn's estimators on nmf_xp: change one import, ``from nmf_xp.sklearn import NMF, MiniBatchNMF``.

A thin shell: parameters in, the public functions called, attributes out. The page "Coming from scikit-learn" says what
is the same and what differs. It needs scikit-learn (``pip install "nmf_xp[sklearn]"``), as nothing else here does.

| file | what it holds |
|---|---|
| `base` | what both estimators share |
| `nmf`, `minibatch` | one estimator each |
| `function` | `non_negative_factorization` |
| `plain` | fits of ordinary numbers, by the solver itself |
| `inputs` | X, W and H of any array library, with scikit-learn's messages |
| `together` | many fits of one matrix, in threads |
| `starts` | scikit-learn's starts |
| `callbacks` | what sees a run: the stopping rule of `mu`, the lines of `verbose`, the user's callback |
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    msg = 'nmf_xp.sklearn needs scikit-learn: pip install "nmf_xp[sklearn]"'
    raise ImportError(msg) from error

from nmf_xp.sklearn.function import non_negative_factorization
from nmf_xp.sklearn.minibatch import MiniBatchNMF
from nmf_xp.sklearn.nmf import NMF

__all__ = ["NMF", "MiniBatchNMF", "non_negative_factorization"]
