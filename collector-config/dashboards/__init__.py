"""The dashboards as code: `python -m dashboards` in the folder above writes grafana/dashboards, `--check` compares.

One module makes one dashboard; `panels` says once how a panel of ours looks. What is asked of Prometheus is in plain
sight in each module: the stack tests run every expression.
"""
