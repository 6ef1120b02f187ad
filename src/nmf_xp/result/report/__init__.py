"""A factorization as one HTML page that stands alone: no script, no font, no picture from elsewhere.

`stored` reads what `nmf-xp fit` wrote, and `parts` makes of it the components in their order. The sections are in
`components`, `loadings`, `features`, `batches` and `sections`. `charts` and `images` draw, `markup` escapes, and `page`
puts it together.
"""

from nmf_xp.result.report.page import page
from nmf_xp.result.report.stored import Stored, read_stored, stored_from

__all__ = ["Stored", "page", "read_stored", "stored_from"]
