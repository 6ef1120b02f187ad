"""Runs of cNMF (Kotliar et al. 2019), in cNMF 1.7's folders: what one of the two programs begins the other can finish.

| file | what it holds |
|---|---|
| `folder` | the files of a run: where each is, and how it is read and written |
| `frames` | tables, `.df.npz` and text |
| `counts` | counts from files, their shares of a million, variable genes, unit variance |
| `preparing`, `factorizing`, `agreeing` | the commands |
"""

from nmf_xp.scverse.cnmf.agreeing import consensus
from nmf_xp.scverse.cnmf.factorizing import combine, factorize, ranks_of
from nmf_xp.scverse.cnmf.folder import Folder
from nmf_xp.scverse.cnmf.preparing import prepare

__all__ = ["Folder", "combine", "consensus", "factorize", "prepare", "ranks_of"]
