"""Makes the project yours: your names, what Terraform made, and the settings of your repository on GitHub."""
