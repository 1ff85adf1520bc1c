"""Measures speed and quality, each figure against a named rival in the same run; `rankone bench` and `rankone tables`.

timing         rivals in turn, tables and goals
markdown       tables as text
resources      FLOPs and peak memory of a call
bundles        the bundles and photographs that are measured
head, sketch, normalization, phase1, engines, gpu    one question each
retrieval      the index; gallery, compact and peers belong to it
serving/       the service under load
paper/         the paper's tables and figures
quality/       what fine-tuning gains
concepts       the pictures of docs/concepts.md
"""
