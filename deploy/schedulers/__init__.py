"""Runs the pipelines in Airflow and in Kubeflow: a DAG and a pipeline that are generated from DVC's own graph."""
