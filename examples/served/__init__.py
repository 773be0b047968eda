"""What the model versions carry with them: MLflow stores these files beside the weights.

MLflow runs a copy of each file when it loads the model ("models from code"), in a process that has
neither modelmux nor this folder. So nothing here may import from outside MLflow, the libraries in
the model's requirements, and the file itself.
"""
