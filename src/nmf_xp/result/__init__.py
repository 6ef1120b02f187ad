"""What a factorization returns, and why it ended: one file an idea.

`factorized` is the result, `status` why it ended, `several` makes one of many. `frames` and `features` say what is in
the factors, `explained` how much of V they hold. `storing` and `loading` keep it in a file, `report` and `display` show
it.
"""

from nmf_xp.result.factorized import DATA_FIELDS, STATIC_FIELDS, Result
from nmf_xp.result.several import best_of, normalized, stacked
from nmf_xp.result.status import Status

__all__ = ["DATA_FIELDS", "STATIC_FIELDS", "Result", "Status", "best_of", "normalized", "stacked"]
