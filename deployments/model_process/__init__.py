"""The process of one loaded version: loads it, answers its calls, and nothing else.

Runs in the model's own interpreter (Python 3.8 to 3.13, MLflow 2.0 or newer, NumPy 1 or 2), which
has nothing of ours: so everything in this room is of the standard library, NumPy, pandas and
`mlflow.pyfunc`, in the syntax of Python 3.8, and modules import each other relatively. `start.py`
loads the room by its path, under a name that no model's package has; the gateway's own processes
import from it what they share with it (`messages`, `values`, `framing`)."""
