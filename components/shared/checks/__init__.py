"""What the data must satisfy, and how that is shown."""

import os

# Great Expectations reads it once, when it is imported
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
