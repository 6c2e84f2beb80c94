"""What watches the service: rules, alerts, dashboards, and the loop that drift closes."""
