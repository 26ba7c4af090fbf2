"""zenvoy's Grafana dashboards as code, for development only.

`python -m grafana.build` writes the committed JSON.
"""
