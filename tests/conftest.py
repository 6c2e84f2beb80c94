pytest_plugins = ["tests.browsing"]
