"""A task that writes down its experiments."""

import argosy as sky


def tracked():
    return sky.Task(
        setup="""
        pip install mlflow torch
        export MLFLOW_TRACKING_URI=https://mlflow.example.org
        """,
        run="""
        python fit.py \
            --mlflow_experiment "fit" \
            --mlflow_run_name "run-$(date +%Y%m%d-%H%M%S)"
        """,
    )


task = tracked()
sky.validate(task)
