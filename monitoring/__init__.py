"""What watches the service: rules, alerts, dashboards, and the loop that drift closes."""

import common  # noqa: F401 - an interrupt is one line
