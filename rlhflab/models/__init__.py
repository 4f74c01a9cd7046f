"""Language models: loading, the tiny default, log-probabilities of answers, sampling."""
