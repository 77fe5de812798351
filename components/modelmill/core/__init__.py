"""What every part stands on: it knows no step, no torch, no kfp and no airflow."""
