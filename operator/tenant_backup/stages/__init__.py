"""What runs in a Job's containers, one module per stage; `python -m tenant_backup.stages NAME`."""
