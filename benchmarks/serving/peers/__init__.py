"""What the service is measured against. Each file is a whole service, written as its framework's own pages do."""
