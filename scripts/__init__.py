"""What is run when the app is deployed, and by nobody else."""
