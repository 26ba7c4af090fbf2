"""zenvoy's Grafana dashboards: tables of panels (`fleet`, `service`, `control_plane`), and what is made of them.

`python -m grafana.build` writes the committed JSON, `python -m grafana.render` draws a real run's data with the same
panels. Development only: nothing that is shipped imports this.
"""
