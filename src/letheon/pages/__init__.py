"""Pages to browse: requests, lineage, runs, and the atlas of methods, as static files or behind `letheon serve`.

    for path, content in site(desk, runs).items():
        write(path, content())

Importing this package imports no torch; neither does opening a page, but for those of single methods, which show settings.
"""

from __future__ import annotations

from .build import headers, site

__all__ = ["headers", "site"]
