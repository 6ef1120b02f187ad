"""AnnData in, AnnData out: ``nmf_xp.scverse.nmf(adata, 10, layer="counts")``, as scanpy's functions do it.

Thin shells around the public functions. What they find is written where scanpy looks for it: loadings of cells in
`obsm`, those of genes in `varm`, and what else is known of the run in `uns`.

| file | what it holds |
|---|---|
| `reading` | the matrix that is meant: a layer, some of the genes, sizes of the cells |
| `adding` | what was found, put into AnnData |
| `models`, `ranks`, `projecting` | the functions |
| `cnmf/` | runs of cNMF, in its own files |
"""

from nmf_xp.scverse.models import consensus, nmf
from nmf_xp.scverse.projecting import project
from nmf_xp.scverse.ranks import select_rank

__all__ = ["consensus", "nmf", "project", "select_rank"]
