"""Trains a checkpoint on questions and answers: whole or by adapters, on one device or many."""
