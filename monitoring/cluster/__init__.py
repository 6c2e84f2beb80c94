"""What watches the service in a cluster: rules, the delivery exporter, the relay. Argo CD applies the folder above."""
