"""Notebooks that open in Google Colab and need nothing but Run all."""
