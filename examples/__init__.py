"""The demo models of modelmux: real models, small enough to be trained on the spot.

======================  ==========================================================================
module                  what it holds
======================  ==========================================================================
`registration`          the way in: registers the models on an MLflow server (`python -m` it)
`publishing`            how one version gets from a folder on disk into the registry
`quiet`                 no library's log lines and bars between the demo's own lines of progress
`training`              what training the two transformers has in common
`translation`           a T5 that learns `phrases`
`question_answering`    a BERT that learns to find the answers of `facts`
`delivery`              a scikit-learn pipeline with an optional column
`served`                the files that MLflow stores with the models and runs when it loads them
======================  ==========================================================================

Nothing in here imports modelmux, and modelmux's packages import nothing of this but `registration`.
"""
