"""Types of `import letheon as lt`: the package itself finds these names on first use."""

from .api import audit as audit
from .api import data as data
from .api import method as method
from .api import methods as methods
from .api import report as report
from .api import subject as subject
from .core.data import Data as Data
from .core.data import Example as Example
from .core.errors import LetheonError as LetheonError
from .core.findings import Finding as Finding
from .core.findings import Findings as Findings
from .core.registry import use as use
from .core.run import Run as Run
from .core.subject import Subject as Subject

__version__: str
__all__: list[str]
