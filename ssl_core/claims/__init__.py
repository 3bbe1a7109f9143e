"""Curves against a control, and every claim that is made of them, each under test."""
