"""The named columns and their shares of all components, as a table that can be sorted and copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nmf_xp.result.report.markup import called

if TYPE_CHECKING:
    from nmf_xp.result.report.parts import Part
    from nmf_xp.result.report.stored import Stored

LARGEST = 10_000  # cells of the table

# The page does without: then the table stands in its first order, and is copied by hand.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const [first, then] = column ? ["descending", "ascending"] : ["ascending", "descending"];
      const order = head.getAttribute("aria-sort") === first ? then : first;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const key = row => row.cells[column].textContent, sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => column ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, {numeric: true});
      body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
    };
  });
  const copy = document.createElement("button");
  copy.textContent = "Copy the table";
  copy.className = "copy";
  const plain = cell => {
    const text = cell.textContent.replace(/\\s+/g, " ").trim();
    return /^[=+@-]/.test(text) ? "'" + text : text;
  };
  copy.onclick = async () => {
    const lines = [...table.rows].map(row => [...row.cells].map(plain).join("\\t"));
    try {
      await navigator.clipboard.writeText(lines.join("\\n"));
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(table);
      copy.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl-C";
    }
  };
  table.parentNode.before(copy);
}
"""


def features(stored: Stored, parts: list[Part], *, n_top: int) -> str:
    """The columns that are named for any component, the largest share first."""
    H = np.stack([part.columns for part in parts])
    n_top = max(1, min(n_top, LARGEST // len(parts) ** 2))
    named = np.unique(np.argsort(-H, axis=1, kind="stable")[:, :n_top])
    if len(named) * len(parts) > LARGEST:
        return ""
    named = named[np.argsort(-H[:, named].max(axis=0), kind="stable")]
    lines = "".join(
        f'<tr><th scope="row">{called(stored.column_names, j, "column")}</th>'
        + "".join(f"<td>{f'{100 * share:.2f}' if share else 0}</td>" for share in H[:, j].tolist())
        + "</tr>"
        for j in named.tolist()
    )
    heads = "".join(f'<th scope="col">{part.name}</th>' for part in parts)
    words = (
        f"Percent of each component, for the {len(named)} columns of V that are among the first {n_top} of any. "
        "A click on a heading sorts by it."
    )
    return (
        f'<h2>Columns</h2><p class="quiet">{words}</p><div class="wide"><table class="sortable"><thead><tr>'
        f'<th scope="col">column</th>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
    )
