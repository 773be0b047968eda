"""The catalog for people: pages rendered here, and what they show as plain values.

`forms`, `listing` and `model_view` are pure: from the catalog to what a template shows. `rendering`
puts templates and headers around it, `routes` answers requests. The scripts and styles of the pages
are in `gateway/http/assets/catalog`. Must not import ray or mlflow.
"""
